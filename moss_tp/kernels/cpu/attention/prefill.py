"""Prefill attention: tiles of queries over the context, read straight from the paged cache.

One task is one head of one of the plan's tiles. Context is read in steps of CONTEXT tokens from
its start, as far as the tile's last row sees. The softmax is online, in fp32.
"""

from typing import Any, NamedTuple

from torch import Tensor

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes, row_dtype
from moss_tp.kernels.cpu.attention.paged import HeadCache
from moss_tp.kernels.cpu.attention.plan import CpuPlan, StepAddresses, Tile
from moss_tp.kernels.cpu.attention.prefill_operands import (
    BF16_PAIR_OPERANDS,
    FP32_OPERANDS,
    Operands,
)
from moss_tp.kernels.cpu.attention.prefill_tile import (
    CONTEXT,
    make_allocate,
    make_attend_context,
    store_out,
)
from moss_tp.kernels.cpu.linear.mul_add import PANEL
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.native.compiled import inlined, kernel_on_demand
from moss_tp.native.dtypes import BF16
from moss_tp.native.llvm import FP32_BYTES, INT_BYTES
from moss_tp.native.memory import int64_at
from moss_tp.native.params import Address, num_bytes, params_reader
from moss_tp.native.vectors import has_cpu_feature


class PrefillParams(NamedTuple):
    step: Address  # StepAddresses
    qkv: Address  # (T, 3, H, D) fp32, q rotated and scaled
    out: Address  # (T, H * D)
    out_stride: int  # bytes
    k_cache: Address
    v_cache: Address
    num_heads: int
    head_dim: int
    block_size: int
    cache_dtype: int
    out_dtype: int


_read_params, _read_step = params_reader(PrefillParams), params_reader(StepAddresses)
_read_tile, _TILE_BYTES = params_reader(Tile), num_bytes(Tile)


def add_prefill(
    program: Program, qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: CpuPlan
) -> None:
    """`qkv (T, 3, H, D)` as `add_store` leaves it, `out (T, H * D)` fp32 or bf16 with any row
    stride."""
    if not plan.num_tiles:
        return
    k_cache, v_cache = cache
    num_heads, head_dim = qkv.shape[2:]
    params = PrefillParams(
        step=plan.step,
        qkv=qkv,
        out=out,
        out_stride=out.stride(0) * out.itemsize,
        k_cache=k_cache,
        v_cache=v_cache,
        num_heads=num_heads,
        head_dim=head_dim,
        block_size=k_cache.shape[2],
        cache_dtype=row_dtype(k_cache.dtype),
        out_dtype=row_dtype(out.dtype),
    )
    has_bf16 = BF16 in (params.cache_dtype, params.out_dtype)
    program.add(prefill_kernel(has_bf16, head_dim), plan.num_tiles * num_heads, params)


def prefill_kernel(has_bf16: bool, head_dim: int) -> int:
    """The kernel, compiled. `has_bf16`: the cache or the output is bf16."""
    has_dot = has_cpu_feature("avx512bf16") and head_dim % BF16_PAIR_OPERANDS.per_step == 0
    return _bf16_pair_kernel() if has_bf16 and has_dot else _fp32_kernel()


def _make_attend(operands: Operands) -> Any:
    """`attend(params, task)` for one head of one tile."""
    pack_query, allocate = operands.pack_query, make_allocate(operands)
    attend_context = make_attend_context(operands)

    @inlined
    def attend(params: int, task: int) -> None:
        p = _read_params(params)
        step = _read_step(p.step)
        num_heads, head_dim = p.num_heads, p.head_dim
        head = task % num_heads
        tile = _read_tile(step.tiles + task // num_heads * _TILE_BYTES)
        block_table = int64_at(step.block_tables + tile.seq * step.table_stride * INT_BYTES)
        cache = HeadCache(
            p.k_cache, p.v_cache, num_heads, head, head_dim, p.block_size, p.cache_dtype
        )
        work = allocate(tile.num_rows, head_dim)
        for i in range(tile.num_rows):
            query = p.qkv + ((tile.row + i) * 3 * num_heads + head) * head_dim * FP32_BYTES
            pack_query(query, head_dim, work.q[i // PANEL].ctypes.data, i % PANEL)
        stop = tile.context + tile.num_rows - 1
        for start in range(0, stop, CONTEXT):
            for i in range(tile.num_rows):
                work.limits[i] = tile.context + i - start
            attend_context(work, cache, block_table, start, stop)
        out = p.out + tile.row * p.out_stride + head * row_bytes(head_dim, p.out_dtype)
        store_out(work, out, p.out_stride, tile.num_rows, head_dim, p.out_dtype)

    return attend


_attend_fp32 = _make_attend(FP32_OPERANDS)
_attend_bf16_pairs = _make_attend(BF16_PAIR_OPERANDS)


@kernel_on_demand
def _fp32_kernel(params: int, task: int) -> None:
    _attend_fp32(params, task)


@kernel_on_demand
def _bf16_pair_kernel(params: int, task: int) -> None:
    _attend_bf16_pairs(params, task)
