"""Rotary on q and k, and the step's K and V into the paged cache. One task is a few rows.

`qkv (T, 3, H, D)` is fp32; q is rotated and scaled in place, so that no score need be scaled.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.cpu.attention.cache_rows import quantize_row, row_bytes, row_dtype, store_row
from moss_tp.kernels.cpu.attention.layout import (
    Cells,
    find_cell,
    find_key,
    find_scales,
    find_value,
    group_tokens,
    panel_tokens,
)
from moss_tp.kernels.cpu.attention.plan import CpuPlan, StepAddresses
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.kernels.rotary import Rotary
from moss_tp.native.bf16 import fp32_from_bits
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.dtypes import INT8
from moss_tp.native.llvm import FP32_BYTES
from moss_tp.native.memory import fp32_at, int64_at, uint8_at, uint16_at, uint32_at
from moss_tp.native.params import Address, params_reader

TASKS_PER_THREAD = 4
MAX_ROWS = 16  # of a task: those of a block are near each other in memory


class StoreParams(NamedTuple):
    step: Address  # StepAddresses
    qkv: Address  # (T, 3, H, D) fp32, contiguous
    cos: Address  # (max_positions, rotary_dim / 2) fp32
    sin: Address
    k_cache: Address
    v_cache: Address
    num_rows: int
    num_tasks: int
    num_heads: int
    head_dim: int
    block_size: int
    rotary_dim: int
    cache_dtype: int
    per_step: int
    scale_bits: int  # of an fp32


_read_params, _read_step = params_reader(StoreParams), params_reader(StepAddresses)


def add_store(
    program: Program,
    qkv: Tensor,
    rotary: Rotary,
    cache: tuple[Tensor, Tensor],
    plan: CpuPlan,
    scale: float,
    per_step: int,
) -> None:
    """`cache`: K and V `(num_blocks, H, …)` cells, see `layout`."""
    k_cache, v_cache = cache
    tasks = TASKS_PER_THREAD * torch.get_num_threads()
    num_tasks = max(min(len(qkv), tasks), -(-len(qkv) // MAX_ROWS))
    params = StoreParams(
        step=plan.step,
        qkv=qkv,
        cos=rotary.cos,
        sin=rotary.sin,
        k_cache=k_cache,
        v_cache=v_cache,
        num_rows=len(qkv),
        num_tasks=num_tasks,
        num_heads=k_cache.shape[1],
        head_dim=qkv.shape[-1],
        block_size=k_cache.shape[2],
        rotary_dim=rotary.dim,
        cache_dtype=row_dtype(k_cache.dtype),
        per_step=per_step,
        scale_bits=int(np.float32(scale).view(np.uint32)),
    )
    program.add(_store, num_tasks, params)


@inner
def _rotate(x: int, cos: int, sin: int, rotary_dim: int) -> None:
    """Rotates the interleaved pairs of one head, in place."""
    values, cosines, sines = fp32_at(x), fp32_at(cos), fp32_at(sin)
    for pair in range(rotary_dim // 2):
        even, odd = values[2 * pair], values[2 * pair + 1]
        values[2 * pair] = even * cosines[pair] - odd * sines[pair]
        values[2 * pair + 1] = odd * cosines[pair] + even * sines[pair]


@inner
def _scatter(row: int, out: int, count: int, stride: int, size: int) -> None:
    """Copies `count` pieces of 1, 2, 4 or 8 bytes, `stride` pieces apart in `out`."""
    if size == 1:
        for i in range(count):
            uint8_at(out)[i * stride] = uint8_at(row)[i]
    elif size == 2:
        for i in range(count):
            uint16_at(out)[i * stride] = uint16_at(row)[i]
    elif size == 4:
        for i in range(count):
            uint32_at(out)[i * stride] = uint32_at(row)[i]
    else:
        for i in range(count):
            int64_at(out)[i * stride] = int64_at(row)[i]


@inner
def _interleave(rows: int, out: int, count: int, size: int) -> None:
    """Two rows of `count` pieces of 1, 2 or 4 bytes, side by side in memory."""
    if size == 1:
        for i in range(count):
            uint8_at(out)[2 * i] = uint8_at(rows)[i]
            uint8_at(out)[2 * i + 1] = uint8_at(rows)[count + i]
    elif size == 2:
        for i in range(count):
            uint16_at(out)[2 * i] = uint16_at(rows)[i]
            uint16_at(out)[2 * i + 1] = uint16_at(rows)[count + i]
    else:
        for i in range(count):
            uint32_at(out)[2 * i] = uint32_at(rows)[i]
            uint32_at(out)[2 * i + 1] = uint32_at(rows)[count + i]


@inner
def _convert(values: int, row: int, cells: Cells, scale: int) -> None:
    """`head_dim` fp32 as a row of the cache's dtype; an INT8 row's scale goes to `scale`."""
    if cells.dtype == INT8:
        fp32_at(scale)[0] = quantize_row(fp32_at(values), row, cells.head_dim)
    else:
        store_row(fp32_at(values), row, cells.head_dim, cells.dtype)


@inner
def _store_key(k: int, row: int, cells: Cells, cell: int, offset: int) -> None:
    size = row_bytes(1, cells.dtype)
    _convert(k, row, cells, cells.k_cache + find_scales(cells, cell) + offset * FP32_BYTES)
    out = cells.k_cache + cell + find_key(cells, offset, 0) * size
    steps = cells.head_dim // cells.per_step
    _scatter(row, out, steps, panel_tokens(cells.block_size), cells.per_step * size)


@inner
def _store_values(
    v: int, v_stride: int, rows: int, cells: Cells, cell: int, offset: int, count: int
) -> None:
    """`count` tokens of one group, `v_stride` bytes apart: all of it or a part."""
    size, group = row_bytes(1, cells.dtype), group_tokens(cells.block_size, cells.per_step)
    scales = cells.v_cache + find_scales(cells, cell) + offset * FP32_BYTES
    for i in range(count):
        row = rows + i * cells.head_dim * size
        _convert(v + i * v_stride, row, cells, scales + i * FP32_BYTES)
    out = cells.v_cache + cell + find_value(cells, offset) * size
    if count == 2:
        _interleave(rows, out, cells.head_dim, size)
    else:
        _scatter(rows, out, cells.head_dim, group, size)


@inner
def _clear_value(row: Any, cells: Cells, cell: int, offset: int) -> None:
    """Zeroes a token's value."""
    size, group = row_bytes(1, cells.dtype), group_tokens(cells.block_size, cells.per_step)
    row[:] = 0
    out = cells.v_cache + cell + find_value(cells, offset) * size
    _scatter(row.ctypes.data, out, cells.head_dim, group, size)


@inner
def _store_head(
    cells: Cells, v: int, stride: int, slots: Any, rows: tuple[int, int, int], scratch: Any
) -> None:
    """K and V of the rows `rows[0]` to `rows[1]` of a step with `rows[2]` rows."""
    first, stop, num_rows = rows
    group = group_tokens(cells.block_size, cells.per_step)
    row = first
    while row < stop:
        block, offset = slots[row] // cells.block_size, slots[row] % cells.block_size
        cell = find_cell(cells, block)
        is_first = offset % group < group - 1
        has_next = row + 1 < num_rows and slots[row + 1] == slots[row] + 1
        count = 2 if is_first and has_next and row + 1 < stop else 1
        own = v + (row - first) * stride
        for i in range(count):
            k = own + i * stride - cells.num_heads * cells.head_dim * FP32_BYTES
            _store_key(k, scratch.ctypes.data, cells, cell, offset + i)
        _store_values(own, stride, scratch.ctypes.data, cells, cell, offset, count)
        if is_first and not has_next:
            # It is multiplied by a weight of 0, and 0 * NaN would not be 0.
            _clear_value(scratch, cells, cell, offset + 1)
        row += count


@kernel
def _store(params: int, task: int) -> None:
    p = _read_params(params)
    step = _read_step(p.step)
    num_heads, head_dim = p.num_heads, p.head_dim
    scale = fp32_from_bits(np.uint32(p.scale_bits))
    first, stop = task * p.num_rows // p.num_tasks, (task + 1) * p.num_rows // p.num_tasks
    positions, slots = int64_at(step.positions), int64_at(step.slot_mapping)
    part_bytes = num_heads * head_dim * FP32_BYTES  # of q, k or v in a row
    scratch = np.empty(2 * head_dim, np.float32)
    for head in range(num_heads):
        own = p.qkv + first * 3 * part_bytes + head * head_dim * FP32_BYTES
        for row in range(first, stop):
            q = own + (row - first) * 3 * part_bytes
            angles = positions[row] * (p.rotary_dim // 2) * FP32_BYTES
            _rotate(q, p.cos + angles, p.sin + angles, p.rotary_dim)
            _rotate(q + part_bytes, p.cos + angles, p.sin + angles, p.rotary_dim)
            values = fp32_at(q)
            for i in range(head_dim):
                values[i] *= scale
        cells = Cells(
            p.k_cache, p.v_cache, num_heads, head, head_dim, p.block_size, p.cache_dtype, p.per_step
        )
        v, rows = own + 2 * part_bytes, (first, stop, p.num_rows)
        _store_head(cells, v, 3 * part_bytes, slots, rows, scratch)
