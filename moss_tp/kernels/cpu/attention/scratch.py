"""A task's scratch memory: one allocation, cut into parts by address."""

from typing import NamedTuple

from moss_tp.kernels.cpu.attention.products import CHUNK, PANELS
from moss_tp.kernels.cpu.microkernel.mul_add import PANEL, X_STEP_BYTES
from moss_tp.native.compiled import inlined
from moss_tp.native.llvm import FP32_BYTES, INT_BYTES
from moss_tp.native.vectors import CACHE_LINE, LANES

TABLE_BYTES = (2 * PANELS + 1) * INT_BYTES
RECORD_FLOATS = 2  # of a record, besides its sums


class Scratch(NamedTuple):
    """Addresses. A word is 4 bytes, one K step; fp32 where nothing else is said."""

    q: int  # (queries, D steps) words
    scores: int  # (queries, CHUNK)
    weights: int  # (queries, CHUNK steps) words
    sums: int  # (queries, width): D rounded up to whole panels
    maxima: int  # (queries,)
    totals: int  # (queries, LANES): sums of weights
    records: int  # (queries, D + RECORD_FLOATS), see `partial`
    record: int
    tables: int  # two, see `context`
    keys: int  # (PANELS, D steps, PANEL) words
    values: int  # (CHUNK steps, width) words
    key_scales: int  # (CHUNK,)
    value_scales: int
    row: int  # (D,)
    end: int


@inlined
def width_of(head_dim: int) -> int:
    return -(-head_dim // PANEL) * PANEL


@inlined
def _after(start: int, size: int) -> int:
    return start + -(-size // CACHE_LINE) * CACHE_LINE


@inlined
def cut_scratch(base: int, queries: int, head_dim: int, per_step: int) -> Scratch:
    """From the address `base` on, which may be 0 to find the size."""
    row_bytes, steps = head_dim // per_step * X_STEP_BYTES, CHUNK // per_step
    width, record_bytes = width_of(head_dim), (head_dim + RECORD_FLOATS) * FP32_BYTES
    q = _after(0, base)
    scores = _after(q, queries * row_bytes)
    weights = _after(scores, queries * CHUNK * FP32_BYTES)
    sums = _after(weights, queries * steps * X_STEP_BYTES)
    maxima = _after(sums, queries * width * FP32_BYTES)
    totals = _after(maxima, queries * FP32_BYTES)
    records = _after(totals, queries * LANES * FP32_BYTES)
    record = _after(records, queries * record_bytes)
    tables = _after(record, record_bytes)
    keys = _after(tables, 2 * TABLE_BYTES)
    values = _after(keys, PANELS * PANEL * row_bytes)
    key_scales = _after(values, steps * width * X_STEP_BYTES)
    value_scales = _after(key_scales, CHUNK * FP32_BYTES)
    row = _after(value_scales, CHUNK * FP32_BYTES)
    end = _after(row, width * FP32_BYTES)
    return Scratch(
        q, scores, weights, sums, maxima, totals, records, record, tables, keys, values,
        key_scales, value_scales, row, end,
    )  # fmt: skip
