"""What prefill does with a tile of CONTEXT tokens and a task's queries, a head at a time.

    scores (CONTEXT, queries)  = keys (CONTEXT, D)     @ q (D, queries)
    sums   (D, queries)       += values.T (D, CONTEXT) @ weights (CONTEXT, queries)

Queries stand in columns, by panels; keys and values stay rows, as they lie in the cache. No
query's arithmetic depends on the others.
"""

from typing import Any, NamedTuple

import numpy as np

from moss_tp.kernels.cpu.columns import AT_ONCE, raise_peaks, shrink
from moss_tp.kernels.cpu.context import Head, find_run
from moss_tp.kernels.cpu.elements import put, row_bytes
from moss_tp.kernels.cpu.operands import Operands
from moss_tp.kernels.cpu.products import PANEL, X_BYTES
from moss_tp.kernels.cpu.rows import LOWEST
from moss_tp.kernels.cpu.tile import Shape, make_tile
from moss_tp.kernels.cpu.vectors import LANES
from moss_tp.native.compiled import inlined
from moss_tp.native.simd import FP32_BYTES

CONTEXT = 64


class Work(NamedTuple):
    """A task's own memory; words are 4 bytes a step, see `Operands`."""

    q: Any  # (panels, D steps, PANEL) words
    keys: Any  # (CONTEXT, D steps) words
    values: Any  # (CONTEXT steps, D up to a whole tile) words
    scores: Any  # (CONTEXT, queries) fp32, queries up to a whole panel
    weights: Any  # (panels, CONTEXT steps, PANEL) words
    sums: Any  # (D up to a whole tile, queries) fp32
    limits: Any  # the rest (queries,): int32, then fp32; see `columns`
    peaks: Any
    shrinks: Any
    totals: Any


def make_allocate(operands: Operands) -> Any:
    """`allocate(queries, head_dim)` makes `Work` for so many."""
    per_step, rows = operands.per_step, operands.rows

    @inlined
    def allocate(queries: int, head_dim: int) -> Work:
        panels, steps = -(-queries // PANEL), head_dim // per_step
        width, columns = -(-head_dim // rows) * rows, panels * PANEL
        return Work(
            np.zeros((panels, steps, PANEL), np.uint32),
            np.zeros((CONTEXT, steps), np.uint32),
            np.zeros((CONTEXT // per_step, width), np.uint32),
            np.empty((CONTEXT, columns), np.float32),
            np.empty((panels, CONTEXT // per_step, PANEL), np.uint32),
            np.zeros((width, columns), np.float32),
            np.zeros(columns, np.int32),
            np.full(columns, LOWEST),
            np.empty(columns, np.float32),
            np.zeros(columns, np.float32),
        )

    return allocate


def make_deal(operands: Operands) -> Any:
    """`deal(work, head, table, start, count)`: tokens of the cache become rows of keys and, some at
    a time, of values."""
    per_step, put_key, put_values = operands.per_step, operands.put_key, operands.put_values

    @inlined
    def deal(work: Work, head: Head, table: Any, start: int, count: int) -> None:
        size, kind = row_bytes(head.head_dim, head.kind), head.kind
        keys, values = work.keys.ctypes.data, work.values.ctypes.data
        key_bytes, value_bytes = work.keys.shape[1] * X_BYTES, work.values.shape[1] * X_BYTES
        before = i = 0
        while i < count:
            own, run = find_run(head, table, start + i, count - i)
            for _ in range(run):
                put_key(head.k_cache + own, head.head_dim, kind, keys + i * key_bytes)
                part = i % per_step
                if part == per_step - 1 or i == count - 1:
                    first = before if part else own  # one that is left alone weighs nothing twice
                    to = values + i // per_step * value_bytes
                    put_values(head.v_cache + first, head.v_cache + own, head.head_dim, kind, to)
                before = own
                own += size
                i += 1

    return deal


def make_multiply(operands: Operands, adds: bool) -> Any:
    """`multiply(x, x_stride, x_step, panels, steps, c, row)`: c = x @ panels, or c += x @ panels,
    for the rows of c (rows, queries) of one tile, the first of which is `row`; x, of `row` too,
    and its strides in bytes."""
    rows, most = operands.rows, operands.panels
    shapes = {panels: Shape(rows, panels) for panels in range(1, most + 1)}
    tile = make_tile(operands.product, shapes, adds)

    @inlined
    def multiply(
        x: int, x_stride: int, x_step: int, panels: Any, steps: int, c: Any, row: int
    ) -> None:
        w, panel_bytes = panels.ctypes.data, panels.shape[1] * PANEL * FP32_BYTES
        stride = c.shape[1] * FP32_BYTES
        to, left = c.ctypes.data + row * stride, len(panels)
        while left > 0:
            count = -(-left // -(-left // most))  # dealt out evenly
            tile(count, x, x_stride, x_step, w, panel_bytes, steps, to, stride, 0, 0)
            w += count * panel_bytes
            to += count * PANEL * FP32_BYTES
            left -= count

    return multiply


def make_soften(operands: Operands) -> Any:
    """`soften(work, tokens)`: their scores become weights, and older sums shrink to match."""
    per_step, weigh = operands.per_step, operands.weigh
    # Of the scores, those up to a whole tile are there to be read.
    assert CONTEXT % operands.rows == operands.rows % AT_ONCE == PANEL % LANES == 0

    @inlined
    def soften(work: Work, tokens: int) -> None:
        width, queries = work.sums.shape
        stride, steps = queries * FP32_BYTES, -(-tokens // per_step)
        panel_bytes = work.weights.shape[1] * PANEL * FP32_BYTES
        for column in range(0, queries, LANES):
            at = column * FP32_BYTES
            scores, limits = work.scores.ctypes.data + at, work.limits.ctypes.data + at
            peaks, totals = work.peaks.ctypes.data + at, work.totals.ctypes.data + at
            shrinks = work.shrinks.ctypes.data + at
            if raise_peaks(scores, stride, tokens, limits, peaks, shrinks):
                shrink(work.sums.ctypes.data + at, stride, width, shrinks)
                shrink(totals, stride, 1, shrinks)
            within = column % PANEL * FP32_BYTES
            weights = work.weights.ctypes.data + column // PANEL * panel_bytes + within
            weigh(scores, stride, steps, limits, peaks, totals, weights)

    return soften


@inlined
def put_out(work: Work, out: int, stride: int, count: int, head_dim: int, kind: int) -> None:
    """The first `count` queries' sums, over their weights' sums, into rows of `out`."""
    width, columns = work.sums.shape
    for i in range(count):
        work.totals[i] = np.float32(1) / work.totals[i]
    for column in range(0, columns * FP32_BYTES, LANES * FP32_BYTES):
        sums, inverses = work.sums.ctypes.data + column, work.totals.ctypes.data + column
        shrink(sums, columns * FP32_BYTES, width, inverses)
    own = np.empty(head_dim, np.float32)
    for i in range(count):
        for d in range(head_dim):
            own[d] = work.sums[d, i]
        put(own, out + i * stride, head_dim, kind)
