"""`prefill` where there are products of bf16 pairs: twice as fast, over a cache in bf16.

Queries and softmax's weights are rounded to bf16, what is summed and softmax are fp32. Keys are
dealt into panels by pairs of elements, values by pairs of tokens:

    scores (rows, CONTEXT)  = q (rows, D / 2 pairs)        @ keys (D / 2, CONTEXT)
    sums   (rows, D)       += weights (rows, CONTEXT / 2)  @ values (CONTEXT / 2, D)
"""

from functools import cache
from typing import Any

import numpy as np
from numba.np.numpy_support import carray

from moss_tp.kernels.cpu.elements import row_bytes
from moss_tp.kernels.cpu.prefill import (
    CONTEXT,
    NUM_PARAMS,
    TILE_INTS,
    make_multiply,
    put_rows,
    softmax,
)
from moss_tp.kernels.cpu.products import DOT_BF16, PANEL
from moss_tp.kernels.cpu.rows import LOWEST
from moss_tp.kernels.cpu.vectors import BF16, LINE
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.simd import (
    FP32_BYTES,
    INT_BYTES,
    floats_at,
    halves_at,
    ints_at,
    prefetch,
    round_to_bf16,
    words_at,
)

MAX_ROWS = max(DOT_BF16.panels)
COLUMNS = DOT_BF16.panels[MAX_ROWS] * PANEL  # at once
_multiply = make_multiply(DOT_BF16)


@inner
def _deal_tile(
    keys: Any, values: Any, table: Any, start: int, stop: int, geometry: tuple[int, ...]
) -> None:
    """The keys of up to CONTEXT tokens before `stop` become the first columns of panels
    (CONTEXT / PANEL, D / 2, PANEL), their values the first rows of panels (N, CONTEXT / 2,
    PANEL); in words, each a pair. Memory is asked for the next tile's meanwhile."""
    k_cache, v_cache, heads, head, head_dim, block_size = geometry
    size = row_bytes(head_dim, BF16)
    count = min(CONTEXT, stop - start)
    before = 0
    for i in range(count):
        own = _row(table, start + i, heads, head, block_size) * size
        if start + i + CONTEXT < stop:
            soon = _row(table, start + i + CONTEXT, heads, head, block_size) * size
            for line in range(0, size, LINE):
                prefetch(k_cache + soon + line)
                prefetch(v_cache + soon + line)
        words = words_at(k_cache + own)
        panel = words_at(keys[i // PANEL].ctypes.data + i % PANEL * FP32_BYTES)
        for pair in range(head_dim // 2):
            panel[pair * PANEL] = words[pair]
        if i % 2 == 1 or i == count - 1:
            first = before if i % 2 == 1 else own  # a last one alone: its partner weighs nothing
            _interleave(values, i // 2, v_cache + first, v_cache + own, head_dim)
        before = own


@inner
def _row(table: Any, position: int, heads: int, head: int, block_size: int) -> int:
    """Which row of the cache holds a token's head."""
    block: int = table[position // block_size]
    return (block * heads + head) * block_size + position % block_size


@inner
def _interleave(values: Any, row: int, first: int, second: int, head_dim: int) -> None:
    low, high = halves_at(first), halves_at(second)
    for start in range(0, head_dim, PANEL):
        words = words_at(values[start // PANEL, row].ctypes.data)
        for d in range(min(PANEL, head_dim - start)):
            words[d] = np.uint32(low[start + d]) | np.uint32(high[start + d]) << np.uint32(16)


@inner
def _round_row(floats: Any, halves: Any) -> None:
    for i in range(len(halves)):
        halves[i] = round_to_bf16(floats[i])


@inner
def _attend(params: int, task: int) -> None:
    p = carray(ints_at(params), NUM_PARAMS)
    heads, head_dim, block_size = p[5], p[6], p[7]
    index, head = task // heads, task % heads
    tile = ints_at(p[8] + index * TILE_INTS * INT_BYTES)
    row, count, first_visible, chunk = tile[0], tile[1], tile[2], tile[3]
    table = ints_at(p[9] + chunk * p[10] * INT_BYTES)
    padded = -(-count // MAX_ROWS) * MAX_ROWS
    q = np.zeros((padded, head_dim), np.uint16)
    for i in range(count):
        _round_row(floats_at(p[0] + ((row + i) * 3 * heads + head) * head_dim * FP32_BYTES), q[i])
    keys = np.zeros((CONTEXT // PANEL, head_dim // 2, PANEL), np.uint32)
    num_panels = -(-head_dim // COLUMNS) * COLUMNS // PANEL
    values = np.zeros((num_panels, CONTEXT // 2, PANEL), np.uint32)
    sums = np.zeros((padded, num_panels * PANEL), np.float32)
    scores = np.empty((padded, CONTEXT), np.float32)
    weights = np.zeros((padded, CONTEXT), np.uint16)
    peaks, totals = np.full(padded, LOWEST), np.zeros(padded, np.float32)
    geometry = (p[3], p[4], heads, head, head_dim, block_size)
    stop = first_visible + count - 1
    for start in range(0, stop, CONTEXT):
        length = min(CONTEXT, stop - start)
        _deal_tile(keys, values, table, start, stop, geometry)
        scores[:] = 0
        _multiply(q, keys, head_dim // 2, scores)
        for i in range(count):
            visible = min(length, max(0, first_visible + i - start))
            softmax(scores, sums, peaks, totals, i, visible)
            _round_row(floats_at(scores[i].ctypes.data), weights[i])
        _multiply(weights, values, (length + 1) // 2, sums)
    put_rows(sums, totals, p, row, count, head)


@cache
def attend_kernel() -> int:
    """Compiled only where it is used."""

    @kernel
    def attend(params: int, task: int) -> None:
        _attend(params, task)

    return attend
