"""Attention over the paged KV cache in plain torch: the oracle, and every device's fallback."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.kv_cache import check_attention, dequantize, quantize
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.reference.plan import ReferencePlan, reference_plan
from moss_tp.kernels.rotary import Rotary, rotate


def attend(
    qkv: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan, scale: float
) -> Tensor:
    """`qkv (T, 3, H, D) -> (T, H * D)`: rotates q and k, stores k and v in the plan's slots of
    `cache`, K and V of `(num_blocks, H, block_size, row_width)`, and attends.

    `qkv` may be overwritten. Raises ValueError where the arguments do not fit together.
    """
    check_attention(qkv, cache, plan, qkv.dtype)
    on_device = reference_plan(plan, qkv.device)
    # Heads of q and k as one tensor: on a GPU half as many launches.
    rotated = rotate(qkv[:, :2].flatten(1, 2), rotary, on_device.positions)
    q, k = rotated.chunk(2, dim=1)
    write_kv(k, qkv[:, 2], *cache, on_device)
    return paged_attention(q, *cache, on_device, scale).flatten(1)


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, plan: ReferencePlan) -> None:
    """Writes rows `k`, `v` `(T, H, D)` to their slots of the caches."""
    for cache, rows in ((k_cache, k), (v_cache, v)):
        stored = quantize(rows) if cache.dtype == torch.int8 else rows
        cache[plan.blocks, :, plan.offsets] = stored


def paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: ReferencePlan, scale: float
) -> Tensor:
    """`q (T, H, D) -> (T, H, D)`; the step's own K and V are in the cache already."""
    out = torch.empty_like(q)
    if plan.rows.numel():
        k, v = (gather(cache, plan.row_tables) for cache in (k_cache, v_cache))
        rows = _attend(q[plan.rows][:, None], k, v, plan.row_mask, scale)[:, 0]
        out[plan.rows] = rows.to(out.dtype)
    for chunk in plan.chunks:
        k, v = (
            gather(cache, chunk.block_table)[:, :, : chunk.context] for cache in (k_cache, v_cache)
        )
        out[chunk.rows] = _attend(q[None, chunk.rows], k, v, chunk.mask, scale)[0]
    return out


def gather(cache: Tensor, block_tables: Tensor) -> Tensor:
    """The blocks of `block_tables (S, blocks)` as `(S, H, context, D)`; int8 becomes fp32."""
    rows = cache[block_tables].transpose(1, 2).flatten(2, 3)
    return dequantize(rows) if cache.dtype == torch.int8 else rows


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`q (B, queries, H, D)` over `(B, H, context, D)`. torch keeps scores and softmax in
    fp32."""
    q = q.transpose(1, 2).to(k.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2)
