"""Attention over the paged KV cache in plain torch: the oracle, and what every device can run."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.checks import check_attention
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.rotary import Rotary


def attend(
    qkv: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan, scale: float
) -> Tensor:
    """`qkv (T, 3, H, D) -> (T, H * D)`: turns q and k, stores k and v in the plan's slots of
    `cache`, K and V of `(num_blocks, H, block_size, D)`, and attends.

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
    """Puts rows `k`, `v` `(T, H, D)` into their slots of the caches `(blocks, H, size, D)`."""
    blocks, offsets = plan.slot_mapping // plan.block_size, plan.slot_mapping % plan.block_size
    k_cache[blocks, :, offsets] = k
    v_cache[blocks, :, offsets] = v


def paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: AttentionPlan, scale: float
) -> Tensor:
    """`q (T, H, D) -> (T, H, D)`; the step's own K and V are in the cache already."""
    out = torch.empty_like(q)
    if plan.rows.numel():
        k, v = (_gather(part, plan.row_tables) for part in (k_cache, v_cache))
        out[plan.rows] = _attend(q[plan.rows][:, None], k, v, plan.row_mask, scale)[:, 0]
    for chunk, mask in zip(plan.chunks, plan.chunk_masks, strict=True):
        table = plan.chunk_tables[chunk.table, : -(-chunk.context // plan.block_size)]
        k, v = (_gather(part, table[None])[:, :, : chunk.context] for part in (k_cache, v_cache))
        out[chunk.rows] = _attend(q[None, chunk.rows], k, v, mask, scale)[0]
    return out


def _gather(cache: Tensor, tables: Tensor) -> Tensor:
    """What `tables (S, blocks)` name, as `(S, H, context, D)`."""
    return cache[tables].transpose(1, 2).flatten(2, 3)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`q (B, queries, H, D)` over `(B, H, context, D)`. torch keeps scores and softmax in
    fp32."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2)
