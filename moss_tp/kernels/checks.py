"""What every attention kernel asks of its tensors: kernels read by address and check nothing."""

import torch
from torch import Tensor

from moss_tp.kernels.plan import AttentionPlan


def check_attention(
    qkv: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan, dtype: torch.dtype
) -> None:
    """`qkv (T, 3, H, D)` for caches `(num_blocks, H, block_size, D)` of `dtype`. Raises
    ValueError for what does not fit together."""
    if qkv.dim() != 4 or qkv.shape[1] != 3 or qkv.shape[:1] != plan.slot_mapping.shape:
        raise ValueError(f"qkv {tuple(qkv.shape)} for slots {tuple(plan.slot_mapping.shape)}")
    _, _, heads, head_dim = qkv.shape
    for part in cache:
        if part.shape != cache[0].shape or part.shape[1:] != (heads, plan.block_size, head_dim):
            raise ValueError(f"qkv {tuple(qkv.shape)} for a cache {tuple(part.shape)}")
        if part.dtype != dtype or not part.is_contiguous():
            raise ValueError(f"the cache is {part.dtype} instead of contiguous {dtype}")
