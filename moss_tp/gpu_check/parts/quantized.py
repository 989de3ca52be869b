"""MOSS's shape with blocks of 4 and 8 bits: decode, prefill and memory.

The limit is the card's for the bytes of the stored weights; the LM head is in fp16.
"""

from random import Random
from typing import Any

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.parts.limits import rates_of
from moss_tp.gpu_check.parts.speed import profile_decode
from moss_tp.gpu_check.tools.engines import drive, opened, requests
from moss_tp.gpu_check.tools.fit import fitting, free_bytes
from moss_tp.gpu_check.tools.shapes import MOSS, TINY, Shape
from moss_tp.gpu_check.tools.speeds import time_decode, time_prefill

Decodes = dict[int, tuple[int, float | None]]

# Batch: tokens of a prompt, and the bar as a share of the limit.
DECODES: dict[int, Decodes] = {
    4: {1: (480, 0.60), 8: (480, 0.55), 32: (480, 0.45), 64: (192, None), 128: (192, None)},
    8: {1: (480, None), 8: (480, None), 32: (480, None)},
}
PREFILL = 1024
KV_TOKENS = 128 * 256
PROFILED_BATCH = 1


def run(check: Check) -> None:
    shape = fitting(MOSS, KV_TOKENS, free_bytes(check.device)) if check.is_full else TINY
    for bits, decodes in DECODES.items():
        _time(check, shape.quantized(bits), decodes if check.is_full else {2: (9, None)})


def _time(check: Check, shape: Shape, decodes: Decodes) -> None:
    # The kernels for quantized weights have no fp32.
    dtype, rates = "float16", rates_of(check)
    settings: dict[str, Any] = {
        "load_format": "dummy",
        "max_num_seqs": max(decodes),
        "max_num_batched_tokens": 2048,
        "num_speculative_tokens": 0,
        "kv_cache_bytes": None if check.is_full else 1 << 22,
    }
    directory = shape.write(check.directory / f"int{shape.bits}")
    with opened(check, directory, dtype, **settings) as engine:
        drive(engine, requests(Random(0), max(decodes), 16, 4, shape.vocab_size))
        for batch, (prompt, bar) in decodes.items():
            time_decode(check, engine, shape, dtype, rates, batch, prompt, bar)
        tokens = PREFILL if check.is_full else 24
        time_prefill(check, engine, shape, dtype, rates, tokens, None)
        profile_decode(check, engine, shape, PROFILED_BATCH)
