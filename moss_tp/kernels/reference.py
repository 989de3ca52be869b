"""Attention over the paged KV cache in plain torch: the oracle, and what every device can run."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.plan import AttentionPlan


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """Puts rows `k`, `v` `(T, H, D)` into their `slots` of the caches `(blocks, size, H, D)`."""
    k_cache.flatten(0, 1)[slots] = k
    v_cache.flatten(0, 1)[slots] = v


def paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, plan: AttentionPlan, scale: float
) -> Tensor:
    """`q (T, H, D) -> (T, H, D)`; the step's own K and V are in the cache already."""
    out = torch.empty_like(q)
    if plan.decode_rows.numel():
        k = k_cache[plan.decode_tables].flatten(1, 2)  # (S, context, H, D)
        v = v_cache[plan.decode_tables].flatten(1, 2)
        queries = q[plan.decode_rows][:, None]
        out[plan.decode_rows] = _attend(queries, k, v, plan.decode_mask, scale)[:, 0]
    for chunk in plan.chunks:
        k = k_cache[chunk.block_table].flatten(0, 1)[None, : chunk.context]
        v = v_cache[chunk.block_table].flatten(0, 1)[None, : chunk.context]
        out[chunk.rows] = _attend(q[None, chunk.rows], k, v, chunk.mask, scale)[0]
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`(B, queries, H, D)` over `(B, context, H, D)`. torch keeps scores and softmax in fp32."""
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2)
