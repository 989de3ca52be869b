"""The host's own time of a decode step: the device does nothing, at once."""

import statistics
import time
from random import Random

from moss_tp.accelerator.null import NullAccelerator
from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.tools.engines import opened, requests
from moss_tp.gpu_check.tools.shapes import TINY
from moss_tp.gpu_check.verdict import Verdict

BARS_MS = {1: 0.3, 64: 0.6}
PROMPT, NEW, SKIPPED = 200, 160, 20
MAX_BATCH = 64


def run(check: Check) -> None:
    for batch, bar in BARS_MS.items():
        name = f"host's time of a decode step, batch {batch}"
        milliseconds = host_step_s(check, batch) * 1e3
        known_bar = bar if check.is_full else None  # a machine that tests run on is busy
        check.verdict(Verdict(name, milliseconds, "ms", bar=known_bar, sense="at most"))


def host_step_s(check: Check, batch: int) -> float:
    """The median over the steps in which all `batch` sequences decode, greedily. The model's size
    does not matter."""
    settings = {
        "load_format": "dummy",
        "num_speculative_tokens": 0,
        "max_num_seqs": MAX_BATCH,
        "max_num_batched_tokens": MAX_BATCH * PROMPT,
        "kv_cache_bytes": 1 << 26,
    }
    shape = TINY.with_positions(2048)
    model = shape.write(check.directory / "host")
    with opened(check.on_cpu(), model, "float32", NullAccelerator(), **settings) as engine:
        for request in requests(Random(0), batch, PROMPT, NEW, shape.vocab_size):
            engine.add_request(request)
        seconds = []
        while engine.has_work:
            start = time.perf_counter()
            engine.start_step()
            engine.take_deltas()
            engine.finish_step()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[SKIPPED:-SKIPPED])
