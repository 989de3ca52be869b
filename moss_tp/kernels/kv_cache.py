"""What a KV cache holds of a token and head, and the shape checks of every attention kernel.

fp32, bf16, fp16    head_dim elements
int8                head_dim elements, and the bytes of their scale in fp32

A back end orders a head's part of a block as it likes, in as many bytes; a cache is read by the
back end that has written it. The reference keeps rows, as `quantize` makes them; the CPU's kernels
have panels, see `cpu.attention.layout`.
"""

import torch
from torch import Tensor

from moss_tp.kernels.plan import AttentionPlan

SCALE_BYTES = 4


def row_width(head_dim: int, dtype: torch.dtype) -> int:
    """Elements of a cache row, its scale included."""
    return head_dim + SCALE_BYTES if dtype == torch.int8 else head_dim


def quantize(rows: Tensor) -> Tensor:
    """`(..., D)` to int8 rows `(..., D + SCALE_BYTES)`, so that each row's absmax becomes 127."""
    wide = rows.float()
    scale = wide.abs().amax(-1, keepdim=True) * (1 / 127)
    inverse = torch.where(scale > 0, 1 / scale, 0)
    return torch.cat(((wide * inverse).round().to(torch.int8), scale.view(torch.int8)), dim=-1)


def dequantize(rows: Tensor) -> Tensor:
    """int8 rows `(..., D + SCALE_BYTES)` to fp32 `(..., D)`."""
    # A copy: a view as fp32 must start at a multiple of four bytes.
    scale = rows[..., -SCALE_BYTES:].clone(memory_format=torch.contiguous_format)
    return rows[..., :-SCALE_BYTES] * scale.view(torch.float32)


def check_attention(
    qkv: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan, dtype: torch.dtype
) -> None:
    """`qkv (T, 3, H, D)`, caches `(num_blocks, H, block_size, row_width)` of `dtype` or int8.

    Raises ValueError where they do not fit together: kernels read by address and check nothing.
    """
    if qkv.dim() != 4 or qkv.shape[1] != 3 or len(qkv) != plan.num_rows:
        raise ValueError(f"qkv {tuple(qkv.shape)} for {plan.num_rows} slots")
    _, _, num_heads, head_dim = qkv.shape
    for part in cache:
        expected = (num_heads, plan.block_size, row_width(head_dim, part.dtype))
        if part.shape != cache[0].shape or part.shape[1:] != expected:
            raise ValueError(f"qkv {tuple(qkv.shape)} for a cache {tuple(part.shape)}")
        if part.dtype not in (dtype, torch.int8) or not part.is_contiguous():
            raise ValueError(f"the cache is {part.dtype} instead of contiguous {dtype}")
