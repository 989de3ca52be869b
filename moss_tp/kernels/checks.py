"""What every attention kernel asks of its tensors: kernels read by address and check nothing."""

import torch
from torch import Tensor

from moss_tp.kernels.plan import AttentionPlan

SCALE_BYTES = 4  # a row in int8 ends with its scale in fp32


def row_width(head_dim: int, dtype: torch.dtype) -> int:
    """Elements of a row of the cache."""
    return head_dim + SCALE_BYTES if dtype == torch.int8 else head_dim


def check_attention(
    qkv: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan, dtype: torch.dtype
) -> None:
    """`qkv (T, 3, H, D)` for caches `(num_blocks, H, block_size, D)` of `dtype`, or in int8 with
    wider rows. Raises ValueError for what does not fit together."""
    if qkv.dim() != 4 or qkv.shape[1] != 3 or qkv.shape[:1] != plan.slot_mapping.shape:
        raise ValueError(f"qkv {tuple(qkv.shape)} for slots {tuple(plan.slot_mapping.shape)}")
    _, _, heads, head_dim = qkv.shape
    for part in cache:
        own = (heads, plan.block_size, row_width(head_dim, part.dtype))
        if part.shape != cache[0].shape or part.shape[1:] != own:
            raise ValueError(f"qkv {tuple(qkv.shape)} for a cache {tuple(part.shape)}")
        if part.dtype not in (dtype, torch.int8) or not part.is_contiguous():
            raise ValueError(f"the cache is {part.dtype} instead of contiguous {dtype}")
