"""The CPU's layout of a KV cache, by reshaping: `kernels.cpu.attention.layout` in other words."""

from collections.abc import Callable

import torch
from torch import Tensor

from moss_tp.kernels.cpu.attention.attend import attend
from moss_tp.kernels.cpu.attention.operands import Operands, best_operands
from moss_tp.kernels.kv_cache import SCALE_BYTES
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary

Cache = tuple[Tensor, Tensor]


def to_cells(cache: Cache, per_step: int) -> Cache:
    """K and V of `(num_blocks, H, block_size, row_width)` rows, as cells in the same shape."""
    keys, values = cache
    return _arranged(keys, per_step, _keys), _arranged(values, per_step, _values)


def to_rows(cells: Cache, per_step: int) -> Cache:
    """The reverse."""
    keys, values = cells
    return _restored(keys, per_step, _keys), _restored(values, per_step, _values)


def attend_rows(
    qkv: Tensor,
    rotary: Rotary,
    cache: Cache,
    plan: AttentionPlan,
    scale: float,
    operands: Operands | None = None,
) -> Tensor:
    """The CPU's attention on a cache of rows."""
    if operands is None:
        has_bf16 = torch.bfloat16 in (cache[0].dtype, qkv.dtype)
        operands = best_operands(has_bf16, qkv.shape[-1])
    cells = to_cells(cache, operands.per_step)
    out = attend(qkv, rotary, cells, plan, scale, operands)
    for part, rows in zip(cache, to_rows(cells, operands.per_step), strict=True):
        part.copy_(rows)
    return out


Arrange = Callable[[Tensor, int], Tensor]


def _keys(rows: Tensor, per_step: int) -> Tensor:
    blocks, heads, size, dim = rows.shape
    width = 16 if size % 16 == 0 else size
    parts = rows.reshape(blocks, heads, size // width, width, dim // per_step, per_step)
    return parts.transpose(3, 4).flatten(2)


def _values(rows: Tensor, per_step: int) -> Tensor:
    blocks, heads, size, dim = rows.shape
    group = per_step if size % per_step == 0 else 1
    return rows.reshape(blocks, heads, size // group, group, dim).transpose(3, 4).flatten(2)


def _arranged(rows: Tensor, per_step: int, arrange: Arrange) -> Tensor:
    if rows.dtype != torch.int8:
        return arrange(rows, per_step).reshape(rows.shape)
    elements, scales = rows[..., :-SCALE_BYTES], rows[..., -SCALE_BYTES:]
    cells = torch.cat((arrange(elements, per_step), scales.flatten(2)), dim=-1)
    return cells.reshape(rows.shape)


def _restored(cells: Tensor, per_step: int, arrange: Arrange) -> Tensor:
    blocks, heads, size, width = cells.shape
    dim = width - SCALE_BYTES if cells.dtype == torch.int8 else width
    places = arrange(torch.arange(size * dim).reshape(1, 1, size, dim), per_step).flatten()
    flat = cells.reshape(blocks, heads, -1)
    rows = torch.empty(blocks, heads, size * dim, dtype=cells.dtype)
    rows[..., places] = flat[..., : size * dim]
    elements = rows.reshape(blocks, heads, size, dim)
    scales = flat[..., size * dim :].reshape(blocks, heads, size, -1)
    return torch.cat((elements, scales), dim=-1)
