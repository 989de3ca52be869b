"""Attention of chunks of queries, tile by tile of their context, straight out of the cache.

One task is one head of some rows of one sequence. Tiles begin at fixed places, and those that lie
wholly in the rows' future are never looked at. Softmax is online, in fp32.
"""

from typing import Any

from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.context import Head, ask
from moss_tp.kernels.cpu.elements import kind_of, row_bytes
from moss_tp.kernels.cpu.operands import PAIRS, SINGLES, Operands
from moss_tp.kernels.cpu.prefill_tile import (
    CONTEXT,
    make_allocate,
    make_deal,
    make_multiply,
    make_soften,
    put_out,
)
from moss_tp.kernels.cpu.products import PANEL, X_BYTES
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.cpu.vectors import BF16, has_instructions
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.native.compiled import inlined, kernel_on_demand
from moss_tp.native.simd import FP32_BYTES, INT_BYTES, ints_at

NUM_PARAMS = 13
TILE_INTS = 4  # see AttentionPlan.tiles


def add_prefill(
    program: Program, qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan
) -> None:
    """`qkv (T, 3, H, D)` as `add_store` leaves it, `out (T, H * D)` fp32 or bf16,
    with any row stride."""
    if not len(plan.tiles):
        return
    k_cache, v_cache = cache
    _, heads, block_size, _ = k_cache.shape
    head_dim = qkv.shape[-1]
    kinds = kind_of(k_cache), kind_of(out)
    params: list[int | Tensor] = [
        qkv, out, out.stride(0) * out.itemsize,
        k_cache, v_cache, heads, head_dim, block_size, plan.tiles,
        plan.chunk_tables, plan.chunk_tables.shape[1], *kinds,
    ]  # fmt: skip
    program.add(kernel_for(BF16 in kinds, head_dim), len(plan.tiles) * heads, params)


def kernel_for(is_bf16: bool, head_dim: int) -> int:
    """Compiled, if it never was; for a cache or what goes out in bf16."""
    has_pairs = has_instructions("avx512bf16") and head_dim % PAIRS.per_step == 0
    return _pairs_kernel() if is_bf16 and has_pairs else _singles_kernel()


def _make_attend(operands: Operands) -> Any:
    """A kernel, for any head of any tile of the plan."""
    rows, per_step, put_query = operands.rows, operands.per_step, operands.put_query
    allocate, deal, soften = (make(operands) for make in (make_allocate, make_deal, make_soften))
    multiply, add_product = (make_multiply(operands, adds) for adds in (False, True))

    @inlined
    def attend(params: int, task: int) -> None:
        p = carray(ints_at(params), NUM_PARAMS)
        heads, head_dim = p[5], p[6]
        tile = ints_at(p[8] + task // heads * TILE_INTS * INT_BYTES)
        row, count, first_visible, chunk = tile[0], tile[1], tile[2], tile[3]
        table = ints_at(p[9] + chunk * p[10] * INT_BYTES)
        head = Head(p[3], p[4], heads, task % heads, head_dim, p[7], p[11])
        work = allocate(count, head_dim)
        for i in range(count):
            query = p[0] + ((row + i) * 3 * heads + head.number) * head_dim * FP32_BYTES
            put_query(query, head_dim, work.q[i // PANEL].ctypes.data, i % PANEL)
        stop = first_visible + count - 1
        key_bytes, value_bytes = work.keys.shape[1] * X_BYTES, work.values.shape[1] * X_BYTES
        for start in range(0, stop, CONTEXT):
            length = min(CONTEXT, stop - start)
            deal(work, head, table, start, length)
            for i in range(0, length, rows):
                soon = start + CONTEXT + i
                ask(head, table, soon, min(rows, stop - soon))
                keys = work.keys.ctypes.data + i * key_bytes
                multiply(keys, key_bytes, X_BYTES, work.q, work.q.shape[1], work.scores, i)
            for i in range(count):
                work.limits[i] = first_visible + i - start
            soften(work, length)
            steps = -(-length // per_step)
            for d in range(0, len(work.sums), rows):
                values = work.values.ctypes.data + d * X_BYTES
                add_product(values, X_BYTES, value_bytes, work.weights, steps, work.sums, d)
        out = p[1] + row * p[2] + head.number * row_bytes(head_dim, p[12])
        put_out(work, out, p[2], count, head_dim, p[12])

    return attend


_attend_singles, _attend_pairs = _make_attend(SINGLES), _make_attend(PAIRS)


@kernel_on_demand
def _singles_kernel(params: int, task: int) -> None:
    _attend_singles(params, task)


@kernel_on_demand
def _pairs_kernel(params: int, task: int) -> None:
    _attend_pairs(params, task)
