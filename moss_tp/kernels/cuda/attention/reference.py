"""The room's two functions in torch: what kernels are compared with, and what runs without a GPU.

The arguments are those of the wrappers, which have checked them. Nothing is kept between calls: a
plan's tensors are read as they are now.
"""

import torch
from torch import Tensor

from moss_tp.kernels.cuda.attention.cache import PagedCache
from moss_tp.kernels.device_plan import DevicePlan
from moss_tp.kernels.kv_cache import SCALE_BYTES, quantize
from moss_tp.kernels.rotary import Rotary, rotate


def store_kv(qkv: Tensor, rotary: Rotary, cache: PagedCache, plan: DevicePlan) -> None:
    rotated = rotate(qkv[:, :2].flatten(1, 2), rotary, plan.positions.long())
    q, k = rotated.chunk(2, dim=1)
    qkv[:, 0] = q
    slots = plan.slots.long()
    blocks, offsets = slots // plan.block_size, slots % plan.block_size
    parts = ((k, cache.k, cache.k_scales), (qkv[:, 2], cache.v, cache.v_scales))
    for rows, elements, scales in parts:
        if scales is None:
            elements[blocks, :, offsets] = rows
            continue
        stored = quantize(rows)
        elements[blocks, :, offsets] = stored[..., :-SCALE_BYTES]
        scale = stored[..., -SCALE_BYTES:].contiguous().view(torch.float32)
        scales[blocks, :, offsets] = scale[..., 0]


def attend(qkv: Tensor, cache: PagedCache, plan: DevicePlan, scale: float, out: Tensor) -> None:
    for tiles in (plan.short_tiles, plan.long_tiles):
        busy = tiles[tiles[:, 2] > tiles[:, 1]].long()
        if len(busy):
            _attend_tiles(qkv[:, 0], cache, plan, busy, scale, out)


def _attend_tiles(
    q: Tensor, cache: PagedCache, plan: DevicePlan, tiles: Tensor, scale: float, out: Tensor
) -> None:
    """Tiles of fewer rows than the largest repeat their last one."""
    seqs, first, end = tiles.unbind(1)
    span = torch.arange(int((end - first).max()), device=q.device)
    rows = torch.minimum(first[:, None] + span, end[:, None] - 1)  # (N, rows)
    positions = plan.positions[rows]
    num_tokens = int(positions.max()) + 1
    tables = plan.block_tables[seqs, : -(-num_tokens // plan.block_size)].long()
    tokens = torch.arange(tables.shape[1] * plan.block_size, device=q.device)
    is_written = tokens <= positions[:, -1:]  # (N, tokens)
    k = _gather(cache.k, cache.k_scales, tables, is_written)
    v = _gather(cache.v, cache.v_scales, tables, is_written)
    scores = q[rows].transpose(1, 2).float() @ k.transpose(2, 3) * scale  # (N, H, rows, tokens)
    scores.masked_fill_((tokens > positions[..., None])[:, None], -torch.inf)
    attended = (scores.softmax(-1) @ v).transpose(1, 2)
    out[rows] = attended.flatten(2).to(out.dtype)


def _gather(elements: Tensor, scales: Tensor | None, tables: Tensor, is_written: Tensor) -> Tensor:
    """The tables' blocks as fp32 `(N, H, tokens, D)`; 0 where nothing is written, even NaN."""
    rows = elements[tables].transpose(1, 2).flatten(2, 3).float()
    if scales is not None:
        rows *= scales[tables].transpose(1, 2).flatten(2, 3)[..., None]
    return rows.masked_fill_(~is_written[:, None, :, None], 0)
