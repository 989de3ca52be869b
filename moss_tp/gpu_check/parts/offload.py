"""Decode with weights in pinned host memory, beside how fast the card reads that memory."""

import statistics
from itertools import pairwise
from random import Random
from typing import Any

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.parts.limits import rates_of
from moss_tp.gpu_check.tools.engines import drive, opened, requests
from moss_tp.gpu_check.tools.fit import free_bytes, offloaded_gib
from moss_tp.gpu_check.tools.shapes import MOSS, TINY
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.hardware.gpu import GIB
from moss_tp.hardware.roofline import ITEM_BYTES, decode_cost, streamed_bytes

OFFLOADED_GIB = 8.0  # more on a small card
KV_BYTES = 2 * GIB  # one sequence of all positions takes 1.6
NEW = 12


def run(check: Check) -> None:
    """The limit of a step is the longer of two ways: streamed weights over the bus, all others
    from the card's memory."""
    shape = MOSS if check.is_full else TINY
    dtype = "float16" if check.is_full else "float32"
    free = free_bytes(check.device)
    gib = offloaded_gib(shape, OFFLOADED_GIB, KV_BYTES, free) if check.is_full else 2e-5
    settings: dict[str, Any] = {
        "load_format": "dummy",
        "cpu_offload_gb": gib,
        "max_num_seqs": 8,
        "num_speculative_tokens": 0,
        "kv_cache_bytes": KV_BYTES if check.is_full else 1 << 22,
    }
    with opened(check, shape.write(check.directory / "offload"), dtype, **settings) as engine:
        for batch in (1, 8):
            asked = requests(Random(batch), batch, 16, NEW, shape.vocab_size)
            trace = drive(engine, asked)["0"]
            step_s = statistics.median([b - a for a, b in pairwise(trace.times[2:])])
            streamed = streamed_bytes(shape.config, round(gib * GIB), ITEM_BYTES[dtype])
            rates = rates_of(check)
            whole = decode_cost(shape.config, batch, 16 + NEW // 2, ITEM_BYTES[dtype])
            limit = batch / max(streamed / rates.pinned_bytes_s, whole.limit_s(rates))
            name = f"decode with {streamed / GIB:.1f} GiB on the host, batch {batch}"
            note = f"{step_s * 1e3:.1f} ms a step"
            check.verdict(Verdict(name, batch / step_s, "tok/s", limit, note=note))
