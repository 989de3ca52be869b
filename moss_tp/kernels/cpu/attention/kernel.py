"""The kernel of attention, for rows of replies and prompts alike.

    out[row, h] = softmax(q[row, h] . K[context, h]) V[context, h]

One task is one of the plan's tiles for some neighbouring heads, and all of its context or one split
of it, see `partial`: where there are few rows, splits are summed at the same time.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes, row_dtype, store_row
from moss_tp.kernels.cpu.attention.layout import Cells
from moss_tp.kernels.cpu.attention.operands import DOT, FMA, Operands
from moss_tp.kernels.cpu.attention.partial import merge_record, store_record, write_record
from moss_tp.kernels.cpu.attention.plan import SPLIT, CpuPlan, StepAddresses, Tile
from moss_tp.kernels.cpu.attention.products import CHUNK
from moss_tp.kernels.cpu.attention.scratch import RECORD_FLOATS, Scratch, cut_scratch
from moss_tp.kernels.cpu.attention.tile import (
    clear_padding,
    clear_sums,
    make_attend_span,
    padded_queries,
)
from moss_tp.kernels.cpu.microkernel.mul_add import X_STEP_BYTES
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.native.compiled import exact_inlined, exact_kernel, exact_kernel_on_demand
from moss_tp.native.llvm import FP32_BYTES, INT_BYTES
from moss_tp.native.memory import fp32_at, int64_at
from moss_tp.native.params import Address, num_bytes, params_reader
from moss_tp.native.vectors import CACHE_LINE

TASKS_PER_THREAD = 4


class AttendParams(NamedTuple):
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
    first_tile: int
    head_groups: int  # tasks that share a tile
    num_splits: int  # tasks that share a tile and heads
    records: Address  # (rows, H, num_splits, D + RECORD_FLOATS) fp32, if there are splits


_read_params, _read_step = params_reader(AttendParams), params_reader(StepAddresses)
_read_tile, _TILE_BYTES = params_reader(Tile), num_bytes(Tile)


def add_attend(
    program: Program,
    qkv: Tensor,
    out: Tensor,
    cache: tuple[Tensor, Tensor],
    plan: CpuPlan,
    operands: Operands,
) -> None:
    """`qkv (T, 3, H, D)` as `add_store` leaves it, `out (T, H * D)` fp32 or bf16 with any row
    stride."""
    kernel, num_heads = kernel_of(operands), qkv.shape[2]
    wanted = TASKS_PER_THREAD * torch.get_num_threads()
    if plan.num_decode_tiles:
        groups = min(num_heads, -(-wanted // plan.num_decode_tiles))
        num_splits = plan.num_splits if plan.num_decode_tiles * num_heads < wanted else 1
        params = _params(qkv, out, cache, plan)._replace(
            head_groups=groups,
            num_splits=num_splits,
            records=_records(plan.num_decode_rows * num_heads * num_splits, qkv.shape[3]),
        )
        program.add(kernel, plan.num_decode_tiles * groups * num_splits, params)
        if num_splits > 1:
            program.add(_merge, plan.num_decode_tiles * num_heads, params)
    if plan.num_prefill_tiles:
        params = _params(qkv, out, cache, plan)._replace(first_tile=plan.num_decode_tiles)
        program.add(kernel, plan.num_prefill_tiles * num_heads, params)


def _records(count: int, head_dim: int) -> Tensor:
    return torch.empty(count, head_dim + RECORD_FLOATS)


def _params(qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: CpuPlan) -> AttendParams:
    """Of tasks with one tile and one head each."""
    k_cache, v_cache = cache
    num_heads, head_dim = qkv.shape[2:]
    return AttendParams(
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
        first_tile=0,
        head_groups=num_heads,
        num_splits=1,
        records=_records(0, head_dim),
    )


def kernel_of(operands: Operands) -> int:
    """Compiled now, if this machine never has."""
    return _dot_kernel() if operands is DOT else _fma_kernel()


@exact_inlined
def _record_bytes(p: Any) -> Any:
    return (p.head_dim + RECORD_FLOATS) * FP32_BYTES


@exact_inlined
def _record(p: Any, row: int, head: int, split: int) -> Any:
    """Of a row among those that decode."""
    return p.records + ((row * p.num_heads + head) * p.num_splits + split) * _record_bytes(p)


@exact_inlined
def _out(p: Any, row: int, head: int) -> Any:
    return p.out + row * p.out_stride + head * row_bytes(p.head_dim, p.out_dtype)


@exact_inlined
def _head_cells(p: Any, head: int, per_step: int) -> Cells:
    """The last head's for a head after it."""
    own = min(head, p.num_heads - 1)
    return Cells(
        p.k_cache, p.v_cache, p.num_heads, own, p.head_dim, p.block_size, p.cache_dtype, per_step
    )


@exact_inlined
def _load_queries(
    p: Any, scratch: Scratch, tile: Tile, head: int, row_bytes: int, dtype: int
) -> None:
    for i in range(tile.num_rows):
        start = ((tile.row + i) * 3 * p.num_heads + head) * p.head_dim
        query = fp32_at(p.qkv + start * FP32_BYTES)
        store_row(query, scratch.q + i * row_bytes, p.head_dim, dtype)


@exact_inlined
def _keep_split(p: Any, scratch: Scratch, tile: Tile, head: int, split: int) -> None:
    """For another task to merge, or merged with those before it."""
    for i in range(tile.num_rows):
        record = scratch.records + i * _record_bytes(p)
        if p.num_splits > 1:
            write_record(scratch, i, p.head_dim, _record(p, tile.before + i, head, split))
        elif split == 0:
            write_record(scratch, i, p.head_dim, record)
        else:
            write_record(scratch, i, p.head_dim, scratch.record)
            merge_record(record, scratch.record, p.head_dim)


@exact_inlined
def _store_out(p: Any, scratch: Scratch, tile: Tile, head: int) -> None:
    for i in range(tile.num_rows):
        record, out = scratch.records + i * _record_bytes(p), _out(p, tile.row + i, head)
        store_record(record, p.head_dim, out, p.out_dtype)


def _make_attend_head(operands: Operands) -> Any:
    """`attend_head(p, scratch, block_table, tile, head, first, stop)`: over the splits from `first`
    up to `stop`."""
    most, per_step, attend_span = (
        operands.max_queries,
        operands.per_step,
        make_attend_span(operands),
    )

    @exact_inlined
    def attend_head(
        p: Any, scratch: Scratch, block_table: Any, tile: Tile, head: int, first: int, stop: int
    ) -> None:
        seen = tile.context + tile.num_rows - 1
        cells, next_head = _head_cells(p, head, per_step), _head_cells(p, head + 1, per_step)
        for split in range(first, stop):
            start = split * SPLIT
            span = (start, min(start + SPLIT, seen))
            following = (cells, start + SPLIT) if split + 1 < stop else (next_head, first * SPLIT)
            clear_sums(scratch, padded_queries(tile.num_rows, most), p.head_dim)
            if start < seen:
                attend_span(scratch, cells, block_table, tile, span, following)
            _keep_split(p, scratch, tile, head, split)

    return attend_head


def _make_attend(operands: Operands) -> Any:
    """`attend(params, task)`."""
    most, per_step, dtype = operands.max_queries, operands.per_step, operands.dtype
    attend_head = _make_attend_head(operands)

    @exact_inlined
    def attend(params: int, task: int) -> None:
        p = _read_params(params)
        step, head_dim, groups = _read_step(p.step), p.head_dim, p.head_groups
        split, group = task % p.num_splits, task // p.num_splits % groups
        number = p.first_tile + task // p.num_splits // groups
        tile = _read_tile(step.tiles + number * _TILE_BYTES)
        block_table = int64_at(step.block_tables + tile.seq * step.table_stride * INT_BYTES)
        queries = padded_queries(tile.num_rows, most)
        size = cut_scratch(0, queries, head_dim, per_step).end + CACHE_LINE
        memory = np.empty(size, np.uint8)
        scratch = cut_scratch(memory.ctypes.data, queries, head_dim, per_step)
        clear_padding(scratch, tile, queries, head_dim // per_step, CHUNK // per_step)
        first, stop = split, split + 1
        if p.num_splits == 1:
            stop = -(-(tile.context + tile.num_rows - 1) // SPLIT)
        for head in range(group * p.num_heads // groups, (group + 1) * p.num_heads // groups):
            _load_queries(p, scratch, tile, head, head_dim // per_step * X_STEP_BYTES, dtype)
            attend_head(p, scratch, block_table, tile, head, first, stop)
            if p.num_splits == 1:
                _store_out(p, scratch, tile, head)
        memory[0] = 0  # so that it is not freed before

    return attend


_attend_dot, _attend_fma = _make_attend(DOT), _make_attend(FMA)


@exact_kernel_on_demand
def _dot_kernel(params: int, task: int) -> None:
    _attend_dot(params, task)


@exact_kernel_on_demand
def _fma_kernel(params: int, task: int) -> None:
    _attend_fma(params, task)


@exact_kernel
def _merge(params: int, task: int) -> None:
    """Merges the splits of a tile's queries of one head."""
    p = _read_params(params)
    tile, head = (
        _read_tile(_read_step(p.step).tiles + task // p.num_heads * _TILE_BYTES),
        task % p.num_heads,
    )
    for i in range(tile.num_rows):
        merged = _record(p, tile.before + i, head, 0)
        for split in range(1, p.num_splits):
            merge_record(merged, _record(p, tile.before + i, head, split), p.head_dim)
        store_record(merged, p.head_dim, _out(p, tile.row + i, head), p.out_dtype)
