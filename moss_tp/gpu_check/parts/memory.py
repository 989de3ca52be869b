"""How much of the card the process has at one sequence of 2,048 tokens."""

import gc
import subprocess
from contextlib import suppress
from random import Random
from typing import Any

import torch

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.tools.engines import drive, opened, requests
from moss_tp.gpu_check.tools.fit import fitting, free_bytes, layer_bytes, scale_of
from moss_tp.gpu_check.tools.shapes import MOSS, TINY, Shape
from moss_tp.gpu_check.tools.speeds import kind_of
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.hardware.gpu import GIB
from moss_tp.kernels.cuda.attention.cache import PagedFormat
from moss_tp.layers.kv_cache import KVCache

MAX_GIB = 35.0
BLOCK_SIZE = 16


def run(check: Check) -> None:
    before = _used_before() if check.device.type == "cuda" else 0
    shape = fitting(MOSS, MOSS.positions, free_bytes(check.device)) if check.is_full else TINY
    for own, max_gib in ((shape, MAX_GIB), (shape.quantized(4), None)):
        _measure(check, own, max_gib, before)


def _measure(check: Check, shape: Shape, max_gib: float | None, before: int) -> None:
    dtype = torch.float16 if check.is_full else torch.float32
    blocks = shape.positions // BLOCK_SIZE + PagedFormat.spare_blocks
    kv_bytes = blocks * KVCache.bytes_per_block(shape.config, 1, BLOCK_SIZE, dtype)
    settings: dict[str, Any] = {
        "load_format": "dummy",
        "max_num_seqs": 1,
        "max_num_batched_tokens": shape.positions,
        "num_speculative_tokens": 0,
        "block_size": BLOCK_SIZE,
        "kv_cache_bytes": kv_bytes,
    }
    name = str(dtype).removeprefix("torch.")
    directory = shape.write(check.directory / f"memory{shape.bits}")
    if check.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(check.device)
    with opened(check, directory, name, **settings) as engine:
        prompt, new = shape.positions - 16, 16
        traces = drive(engine, requests(Random(0), 1, prompt, new, shape.vocab_size))
        assert len(traces["0"].token_ids) == new
        if check.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(check.device)
            used = (total - free - before) / GIB
            name = f"{kind_of(shape)}memory of the process at {shape.positions:,} tokens"
            peak = torch.cuda.max_memory_allocated(check.device) / GIB
            note = f"at most {peak:.2f} in tensors{scale_of(shape)}"
            left_out = (MOSS.layers - shape.layers) * layer_bytes(MOSS, MOSS.positions) / GIB
            bar = None if max_gib is None else max_gib - left_out
            check.verdict(Verdict(name, used, "GiB", bar=bar, sense="at most", note=note))


def _used_before() -> int:
    """Bytes of the card that others use. Asked before this process touches it."""
    command = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return int(shown.stdout.splitlines()[0]) << 20
    return 0
