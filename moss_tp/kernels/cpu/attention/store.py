"""Rotary on q and k, and the step's K and V into the paged cache. One task is one row.

`qkv (T, 3, H, D)` is fp32; q is rotated and scaled in place, so that no score need be scaled.
"""

from typing import Any, NamedTuple

import numpy as np
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


class StoreParams(NamedTuple):
    step: Address  # StepAddresses
    qkv: Address  # (T, 3, H, D) fp32, contiguous
    cos: Address  # (max_positions, rotary_dim / 2) fp32
    sin: Address
    k_cache: Address
    v_cache: Address
    num_rows: int
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
    params = StoreParams(
        step=plan.step,
        qkv=qkv,
        cos=rotary.cos,
        sin=rotary.sin,
        k_cache=k_cache,
        v_cache=v_cache,
        num_rows=len(qkv),
        num_heads=k_cache.shape[1],
        head_dim=qkv.shape[-1],
        block_size=k_cache.shape[2],
        rotary_dim=rotary.dim,
        cache_dtype=row_dtype(k_cache.dtype),
        per_step=per_step,
        scale_bits=int(np.float32(scale).view(np.uint32)),
    )
    program.add(_store, len(qkv), params)


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
def _convert(values: int, row: int, cells: Cells, scale: int) -> None:
    """`head_dim` fp32 as a row of the cache's dtype; an INT8 row's scale goes to `scale`."""
    if cells.dtype == INT8:
        fp32_at(scale)[0] = quantize_row(fp32_at(values), row, cells.head_dim)
    else:
        store_row(fp32_at(values), row, cells.head_dim, cells.dtype)


@inner
def _store_key(k: int, row: Any, cells: Cells, cell: int, offset: int) -> None:
    address, size = row.ctypes.data, row_bytes(1, cells.dtype)
    scale = cells.k_cache + find_scales(cells, cell) + offset * FP32_BYTES
    _convert(k, address, cells, scale)
    out = cells.k_cache + cell + find_key(cells, offset, 0) * size
    steps = cells.head_dim // cells.per_step
    _scatter(address, out, steps, panel_tokens(cells.block_size), cells.per_step * size)


@inner
def _store_value(v: int, row: Any, cells: Cells, cell: int, offset: int, is_last: bool) -> None:
    """`is_last`: no row of this step follows it in the block. The partner that it has in its
    group is then zeroed, since it is multiplied by a weight of 0, and 0 * NaN would not be 0."""
    address, size = row.ctypes.data, row_bytes(1, cells.dtype)
    scale = cells.v_cache + find_scales(cells, cell) + offset * FP32_BYTES
    _convert(v, address, cells, scale)
    out = cells.v_cache + cell + find_value(cells, offset) * size
    group = group_tokens(cells.block_size, cells.per_step)
    _scatter(address, out, cells.head_dim, group, size)
    if is_last and offset % group < group - 1:
        row[:] = 0
        _scatter(address, out + size, cells.head_dim, group, size)


@kernel
def _store(params: int, row: int) -> None:
    p = _read_params(params)
    step = _read_step(p.step)
    num_heads, head_dim, block_size = p.num_heads, p.head_dim, p.block_size
    scale = fp32_from_bits(np.uint32(p.scale_bits))
    slots = int64_at(step.slot_mapping)
    block, offset = slots[row] // block_size, slots[row] % block_size
    is_last = row + 1 == p.num_rows or slots[row + 1] != slots[row] + 1
    angles = int64_at(step.positions)[row] * (p.rotary_dim // 2) * FP32_BYTES
    part_bytes = num_heads * head_dim * FP32_BYTES  # of q, k or v in a row
    first = p.qkv + row * 3 * part_bytes
    scratch = np.empty(head_dim, np.float32)
    for head in range(num_heads):
        cells = Cells(
            p.k_cache, p.v_cache, num_heads, head, head_dim, block_size, p.cache_dtype, p.per_step
        )
        q = first + head * head_dim * FP32_BYTES
        k, v = q + part_bytes, q + 2 * part_bytes
        _rotate(q, p.cos + angles, p.sin + angles, p.rotary_dim)
        values = fp32_at(q)
        for i in range(head_dim):
            values[i] *= scale
        _rotate(k, p.cos + angles, p.sin + angles, p.rotary_dim)
        cell = find_cell(cells, block)
        _store_key(k, scratch, cells, cell, offset)
        _store_value(v, scratch, cells, cell, offset, is_last)
