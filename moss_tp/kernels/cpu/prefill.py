"""Attention of chunks of queries, block by block of their context, straight out of the cache.

One task is one head of up to QUERIES rows of one sequence. Keys and values are widened into
panels once a tile of CONTEXT tokens and used by all those rows; tiles that lie wholly in the
rows' future are never looked at. Softmax is online, in fp32.
"""

from typing import Any

import numpy as np
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.elements import kind_of, put, row_bytes, scale_of
from moss_tp.kernels.cpu.products import LONG_FP32, PANEL, WIDE_FP32, Product
from moss_tp.kernels.cpu.rows import LANES, LOWEST, highest, weigh
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.cpu.tile import make_tile
from moss_tp.kernels.cpu.vectors import BF16, FP32, has_instructions
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.simd import (
    FP32_BYTES,
    INT_BYTES,
    chars_at,
    exp,
    floats_at,
    halves_at,
    ints_at,
    widen,
)

NUM_PARAMS = 13
CONTEXT = 64
TILE_INTS = 4  # see AttentionPlan.tiles

_PRODUCT = LONG_FP32 if has_instructions("avx512f") else WIDE_FP32
MAX_ROWS = max(_PRODUCT.panels)
PANELS = _PRODUCT.panels[MAX_ROWS]  # at once


def add_prefill(
    program: Program, qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan
) -> None:
    """`qkv (T, 3, H, D)` as `add_store` leaves it, `out (T, H * D)` fp32 or bf16,
    with any row stride."""
    k_cache, v_cache = cache
    _, heads, block_size, _ = k_cache.shape
    head_dim = qkv.shape[-1]
    params: list[int | Tensor] = [
        qkv, out, out.stride(0) * out.itemsize,
        k_cache, v_cache, heads, head_dim, block_size, plan.tiles,
        plan.chunk_tables, plan.chunk_tables.shape[1], kind_of(k_cache), kind_of(out),
    ]  # fmt: skip
    if not len(plan.tiles):
        return
    attend = _prefill
    if has_instructions("avx512bf16") and kind_of(k_cache) == BF16 and head_dim % 2 == 0:
        # Stands on this module.
        from moss_tp.kernels.cpu.prefill_pairs import attend_kernel

        attend = attend_kernel()
    program.add(attend, len(plan.tiles) * heads, params)


@inner
def _widen(row: int, head_dim: int, kind: int, out: Any) -> None:
    """A row of the cache in fp32."""
    if kind == FP32:
        floats = floats_at(row)
        for d in range(head_dim):
            out[d] = floats[d]
    elif kind == BF16:
        halves = halves_at(row)
        for d in range(head_dim):
            out[d] = widen(halves[d])
    else:
        chars, scale = chars_at(row), scale_of(row, head_dim)
        for d in range(head_dim):
            out[d] = np.float32(chars[d]) * scale


@inner
def _widen_tile(
    keys: Any, values: Any, table: Any, start: int, count: int, geometry: tuple[int, ...]
) -> None:
    """`count` tokens' keys become the first columns of panels (CONTEXT / PANEL, head_dim, PANEL),
    their values the first rows of panels (N, CONTEXT, PANEL)."""
    k_cache, v_cache, heads, head, head_dim, block_size, kind = geometry
    wide = np.empty(head_dim, np.float32)
    for i in range(count):
        block, offset = table[(start + i) // block_size], (start + i) % block_size
        own = ((block * heads + head) * block_size + offset) * row_bytes(head_dim, kind)
        _widen(k_cache + own, head_dim, kind, wide)
        panel, lane = keys[i // PANEL], i % PANEL
        for d in range(head_dim):
            panel[d, lane] = wide[d]
        _widen(v_cache + own, head_dim, kind, wide)
        for first in range(0, head_dim, PANEL):
            row = floats_at(values[first // PANEL, i].ctypes.data)
            part = floats_at(wide.ctypes.data + first * FP32_BYTES)
            for d in range(min(PANEL, head_dim - first)):
                row[d] = part[d]


def make_multiply(product: Product) -> Any:
    """`multiply(x, panels, steps, c)`: `c += x @ panels`; the rows of x and c come in whole tiles,
    panels as many as are taken at once, and words of either are 4 bytes a step."""
    tile, max_rows = make_tile(product, is_cached=True), max(product.panels)
    at_once = product.panels[max_rows]

    @inner
    def multiply(x: Any, panels: Any, steps: int, c: Any) -> None:
        stride = panels.shape[1] * PANEL * FP32_BYTES
        x_stride, c_stride = x.shape[1] * x.itemsize, c.shape[1] * FP32_BYTES
        for panel in range(0, panels.shape[0], at_once):
            w = panels.ctypes.data + panel * stride
            for row in range(0, x.shape[0], max_rows):
                own_x = x.ctypes.data + row * x_stride
                own_c = c.ctypes.data + row * c_stride + panel * PANEL * FP32_BYTES
                tile(max_rows, own_x, x_stride, w, stride, steps, own_c, c_stride, 0, 0)

    return multiply


@inner
def softmax(scores: Any, sums: Any, peaks: Any, totals: Any, row: int, visible: int) -> None:
    """One row's scores become weights, 0 beyond the `visible` ones; its sums shrink to match."""
    own = scores[row]
    own[visible:] = LOWEST
    peak = highest(own.ctypes.data, CONTEXT // LANES)
    if peak > peaks[row]:
        shrink = exp(peaks[row] - peak)
        peaks[row] = peak
        totals[row] *= shrink
        for i in range(sums.shape[1]):
            sums[row, i] *= shrink
    totals[row] += weigh(own.ctypes.data, CONTEXT // LANES, peaks[row])


@inner
def put_rows(sums: Any, totals: Any, p: Any, row: int, count: int, head: int) -> None:
    """`count` rows' sums over their weights' sums into `out`, from `row` on."""
    head_dim, kind = p[6], p[12]
    for i in range(count):
        own = sums[i]
        for d in range(head_dim):
            own[d] /= totals[i]
        put(own, p[1] + (row + i) * p[2] + head * row_bytes(head_dim, kind), head_dim, kind)


_multiply = make_multiply(_PRODUCT)


@kernel
def _prefill(params: int, task: int) -> None:
    p = carray(ints_at(params), NUM_PARAMS)
    heads, head_dim, block_size, kind = p[5], p[6], p[7], p[11]
    index, head = task // heads, task % heads
    tile = ints_at(p[8] + index * TILE_INTS * INT_BYTES)
    row, count, first_visible, chunk = tile[0], tile[1], tile[2], tile[3]
    table = ints_at(p[9] + chunk * p[10] * INT_BYTES)
    padded = -(-count // MAX_ROWS) * MAX_ROWS
    q = np.zeros((padded, head_dim), np.float32)
    for i in range(count):
        own = floats_at(p[0] + ((row + i) * 3 * heads + head) * head_dim * FP32_BYTES)
        for d in range(head_dim):
            q[i, d] = own[d]
    keys = np.zeros((CONTEXT // PANEL, head_dim, PANEL), np.float32)
    columns = PANELS * PANEL
    values = np.zeros((-(-head_dim // columns) * PANELS, CONTEXT, PANEL), np.float32)
    sums = np.zeros((padded, values.shape[0] * PANEL), np.float32)
    scores = np.empty((padded, CONTEXT), np.float32)
    peaks, totals = np.full(padded, LOWEST), np.zeros(padded, np.float32)
    geometry = (p[3], p[4], heads, head, head_dim, block_size, kind)
    stop = first_visible + count - 1
    for start in range(0, stop, CONTEXT):
        length = min(CONTEXT, stop - start)
        _widen_tile(keys, values, table, start, length, geometry)
        scores[:] = 0
        _multiply(q, keys, head_dim, scores)
        for i in range(count):
            visible = min(length, max(0, first_visible + i - start))
            softmax(scores, sums, peaks, totals, i, visible)
        _multiply(scores, values, length, sums)
    put_rows(sums, totals, p, row, count, head)
