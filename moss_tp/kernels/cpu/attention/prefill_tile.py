"""Prefill attention of one head: a task's queries against CONTEXT tokens at a time.

    scores (CONTEXT, queries)  = keys (CONTEXT, D)     @ q (D, queries)
    sums   (D, queries)       += values.T (D, CONTEXT) @ weights (CONTEXT, queries)

Queries are columns, in panels; keys and values stay rows, as they are in the cache. No query's
arithmetic depends on the others.
"""

from typing import Any, NamedTuple

import numpy as np

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes, store_row
from moss_tp.kernels.cpu.attention.decode_softmax import LOWEST
from moss_tp.kernels.cpu.attention.paged import HeadCache, find_run, prefetch_tokens
from moss_tp.kernels.cpu.attention.prefill_operands import Operands
from moss_tp.kernels.cpu.attention.prefill_softmax import (
    ROWS_AT_ONCE,
    rescale,
    update_running_max,
)
from moss_tp.kernels.cpu.linear.mul_add import PANEL, X_STEP_BYTES
from moss_tp.kernels.cpu.linear.tile import TileShape, make_tile
from moss_tp.native.compiled import inlined
from moss_tp.native.llvm import FP32_BYTES
from moss_tp.native.vectors import LANES

CONTEXT = 64


class Workspace(NamedTuple):
    """A task's scratch arrays. A word is 4 bytes, one K step, see `Operands`."""

    q: Any  # (panels, D steps, PANEL) words
    keys: Any  # (CONTEXT, D steps) words
    values: Any  # (CONTEXT steps, D padded to a whole tile) words
    scores: Any  # (CONTEXT, queries) fp32, queries padded to a whole panel
    weights: Any  # (panels, CONTEXT steps, PANEL) words
    sums: Any  # (D padded to a whole tile, queries) fp32
    limits: Any  # (queries,) int32, see `prefill_softmax`
    maxima: Any  # (queries,) fp32, and so are the next two
    rescales: Any
    totals: Any  # sums of weights


def make_allocate(operands: Operands) -> Any:
    """`allocate(queries, head_dim)` returns a Workspace."""
    per_step, tile_rows = operands.per_step, operands.tile_rows

    @inlined
    def allocate(queries: int, head_dim: int) -> Workspace:
        panels, steps = -(-queries // PANEL), head_dim // per_step
        width, columns = -(-head_dim // tile_rows) * tile_rows, panels * PANEL
        return Workspace(
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


def make_pack_context(operands: Operands) -> Any:
    """`pack_context(work, cache, block_table, start, count)`: packs `count` tokens of the cache
    from `start` on into `keys` and `values`."""
    per_step, pack_key, pack_values = operands.per_step, operands.pack_key, operands.pack_values

    @inlined
    def pack_context(
        work: Workspace, cache: HeadCache, block_table: Any, start: int, count: int
    ) -> None:
        head_dim, dtype = cache.head_dim, cache.dtype
        size = row_bytes(head_dim, dtype)
        keys, values = work.keys.ctypes.data, work.values.ctypes.data
        key_bytes = work.keys.shape[1] * X_STEP_BYTES
        value_bytes = work.values.shape[1] * X_STEP_BYTES
        previous = i = 0
        while i < count:
            row, run = find_run(cache, block_table, start + i, count - i)
            for _ in range(run):
                pack_key(cache.k_cache + row, head_dim, dtype, keys + i * key_bytes)
                part = i % per_step
                if part == per_step - 1 or i == count - 1:
                    # A token without a partner is packed twice; the second has the weight 0.
                    first = previous if part else row
                    out = values + i // per_step * value_bytes
                    pack_values(cache.v_cache + first, cache.v_cache + row, head_dim, dtype, out)
                previous = row
                row += size
                i += 1

    return pack_context


def make_multiply(operands: Operands, accumulates: bool) -> Any:
    """`multiply(x, x_stride, x_step, panels, steps, c, row)`: c = x @ panels, or c += x @ panels,
    for one tile's rows of c (rows, queries), from `row` on. x starts at `row` too; its strides
    are in bytes."""
    rows, max_panels = operands.tile_rows, operands.tile_panels
    shapes = {panels: TileShape(rows, panels) for panels in range(1, max_panels + 1)}
    tile = make_tile(operands.mul_add, shapes, accumulates)

    @inlined
    def multiply(
        x: int, x_stride: int, x_step: int, panels: Any, steps: int, c: Any, row: int
    ) -> None:
        w, panel_bytes = panels.ctypes.data, panels.shape[1] * PANEL * FP32_BYTES
        stride = c.shape[1] * FP32_BYTES
        out, left = c.ctypes.data + row * stride, len(panels)
        while left > 0:
            count = -(-left // -(-left // max_panels))  # split evenly
            tile(count, x, x_stride, x_step, w, panel_bytes, steps, out, stride, 0, 0)
            w += count * panel_bytes
            out += count * PANEL * FP32_BYTES
            left -= count

    return multiply


def make_softmax(operands: Operands) -> Any:
    """`softmax(work, tokens)`: turns scores into weights and rescales earlier sums."""
    per_step, exp_weights = operands.per_step, operands.exp_weights
    # update_running_max reads scores up to a whole ROWS_AT_ONCE, which a tile has written.
    assert CONTEXT % operands.tile_rows == operands.tile_rows % ROWS_AT_ONCE == PANEL % LANES == 0

    @inlined
    def softmax(work: Workspace, tokens: int) -> None:
        width, queries = work.sums.shape
        stride, steps = queries * FP32_BYTES, -(-tokens // per_step)
        panel_bytes = work.weights.shape[1] * PANEL * FP32_BYTES
        for column in range(0, queries, LANES):
            offset = column * FP32_BYTES
            scores, limits = work.scores.ctypes.data + offset, work.limits.ctypes.data + offset
            maxima, totals = work.maxima.ctypes.data + offset, work.totals.ctypes.data + offset
            rescales = work.rescales.ctypes.data + offset
            if update_running_max(scores, stride, tokens, limits, maxima, rescales):
                rescale(work.sums.ctypes.data + offset, stride, width, rescales)
                rescale(totals, stride, 1, rescales)
            panel = work.weights.ctypes.data + column // PANEL * panel_bytes
            weights = panel + column % PANEL * FP32_BYTES
            exp_weights(scores, stride, steps, limits, maxima, totals, weights)

    return softmax


def make_attend_context(operands: Operands) -> Any:
    """`attend_context(work, cache, block_table, start, stop)`: the queries of `work` attend to up
    to CONTEXT tokens from `start` on, below `stop`. Prefetches as many more tokens meanwhile."""
    rows, per_step = operands.tile_rows, operands.per_step
    pack_context, softmax = make_pack_context(operands), make_softmax(operands)
    multiply, accumulate = (make_multiply(operands, adds) for adds in (False, True))

    @inlined
    def attend_context(
        work: Workspace, cache: HeadCache, block_table: Any, start: int, stop: int
    ) -> None:
        key_bytes = work.keys.shape[1] * X_STEP_BYTES
        value_bytes = work.values.shape[1] * X_STEP_BYTES
        length = min(CONTEXT, stop - start)
        pack_context(work, cache, block_table, start, length)
        for i in range(0, length, rows):
            ahead = start + CONTEXT + i
            prefetch_tokens(cache, block_table, ahead, min(rows, stop - ahead))
            keys = work.keys.ctypes.data + i * key_bytes
            multiply(keys, key_bytes, X_STEP_BYTES, work.q, work.q.shape[1], work.scores, i)
        softmax(work, length)
        steps = -(-length // per_step)
        for d in range(0, len(work.sums), rows):
            values = work.values.ctypes.data + d * X_STEP_BYTES
            accumulate(values, X_STEP_BYTES, value_bytes, work.weights, steps, work.sums, d)

    return attend_context


@inlined
def store_out(
    work: Workspace, out: int, stride: int, count: int, head_dim: int, dtype: int
) -> None:
    """Divides the first `count` queries' sums by their weights' sums; stores them as rows."""
    width, columns = work.sums.shape
    for i in range(count):
        work.totals[i] = np.float32(1) / work.totals[i]
    for column in range(0, columns * FP32_BYTES, LANES * FP32_BYTES):
        sums, inverses = work.sums.ctypes.data + column, work.totals.ctypes.data + column
        rescale(sums, columns * FP32_BYTES, width, inverses)
    values = np.empty(head_dim, np.float32)
    for i in range(count):
        for d in range(head_dim):
            values[d] = work.sums[d, i]
        store_row(values, out + i * stride, head_dim, dtype)
