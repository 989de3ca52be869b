"""Attention over the paged KV cache in plain torch: the oracle, and what every device can run."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.checks import SCALE_BYTES, check_attention
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary


def attend(
    qkv: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan, scale: float
) -> Tensor:
    """`qkv (T, 3, H, D) -> (T, H * D)`: turns q and k, stores k and v in the plan's slots of
    `cache`, K and V of `(num_blocks, H, block_size, D)`, and attends. A cache in int8 has four
    bytes more a row, see `quantize`.

    `qkv` may be changed. Raises ValueError for what does not fit together.
    """
    check_attention(qkv, cache, plan, qkv.dtype)
    q, k, v = qkv.unbind(1)
    q, k = rotate(q, rotary, plan.positions), rotate(k, rotary, plan.positions)
    write_kv(k, v, *cache, plan)
    return paged_attention(q, *cache, plan, scale).flatten(1)


def rotate(x: Tensor, rotary: Rotary, positions: Tensor) -> Tensor:
    """`x (T, H, D)` turned, in its own dtype; computed in fp32."""
    cos, sin = rotary.cos[positions][:, None], rotary.sin[positions][:, None]
    rotated = x[..., : rotary.dim].float()
    even, odd = rotated[..., ::2], rotated[..., 1::2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return torch.cat((turned.flatten(-2).to(x.dtype), x[..., rotary.dim :]), dim=-1)


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, plan: AttentionPlan) -> None:
    """Puts rows `k`, `v` `(T, H, D)` into their slots of the caches."""
    blocks, offsets = plan.slot_mapping // plan.block_size, plan.slot_mapping % plan.block_size
    for cache, rows in ((k_cache, k), (v_cache, v)):
        cache[blocks, :, offsets] = quantize(rows) if cache.dtype == torch.int8 else rows


def quantize(rows: Tensor) -> Tensor:
    """`(..., D)` to int8 `(..., D + SCALE_BYTES)`: each row's greatest magnitude becomes 127, and
    the row ends with the bytes of its scale in fp32."""
    wide = rows.float()
    scale = wide.abs().amax(-1, keepdim=True) * (1 / 127)
    inverse = torch.where(scale > 0, 1 / scale, 0)
    return torch.cat(((wide * inverse).round().to(torch.int8), scale.view(torch.int8)), dim=-1)


def dequantize(rows: Tensor) -> Tensor:
    """What `quantize` made, back as fp32 `(..., D)`."""
    # A copy: bytes can be looked at as fp32 only where they begin at a multiple of four.
    scale = rows[..., -SCALE_BYTES:].clone(memory_format=torch.contiguous_format)
    return rows[..., :-SCALE_BYTES] * scale.view(torch.float32)


def paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: AttentionPlan, scale: float
) -> Tensor:
    """`q (T, H, D) -> (T, H, D)`; the step's own K and V are in the cache already."""
    out = torch.empty_like(q)
    if plan.rows.numel():
        k, v = (_gather(part, plan.row_tables) for part in (k_cache, v_cache))
        rows = _attend(q[plan.rows][:, None], k, v, plan.row_mask, scale)[:, 0]
        out[plan.rows] = rows.to(out.dtype)
    for chunk, mask in zip(plan.chunks, plan.chunk_masks, strict=True):
        table = plan.chunk_tables[chunk.table, : -(-chunk.context // plan.block_size)]
        k, v = (_gather(part, table[None])[:, :, : chunk.context] for part in (k_cache, v_cache))
        out[chunk.rows] = _attend(q[None, chunk.rows], k, v, mask, scale)[0]
    return out


def _gather(cache: Tensor, tables: Tensor) -> Tensor:
    """What `tables (S, blocks)` name, as `(S, H, context, D)`; in fp32 from int8."""
    rows = cache[tables].transpose(1, 2).flatten(2, 3)
    return dequantize(rows) if cache.dtype == torch.int8 else rows


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`q (B, queries, H, D)` over `(B, H, context, D)`. torch keeps scores and softmax in
    fp32."""
    q = q.transpose(1, 2).to(k.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2)
