"""What a KV cache holds of a token and head, and the shape checks of every attention kernel.

fp32, bf16, fp16    head_dim elements
int8                head_dim elements, and the bytes of their scale in fp32

A back end allocates a layer's cache by its `CacheFormat` and orders its bytes as it likes; a cache
is read by the back end that has written it. The reference keeps rows, as `quantize` makes them; the
CPU's kernels have panels of as many bytes, see `cpu.attention.layout`; CUDA has the scales in
planes of their own, see `cuda.attention.cache`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from moss_tp.kernels.plan import AttentionPlan
from moss_tp.native.huge_pages import lazy_zeros

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


@dataclass(frozen=True)
class BlockShape:
    """Of one layer's K, and of its V: a rank's heads, and the slots of a block."""

    num_heads: int
    block_size: int
    head_dim: int


class CacheFormat(Protocol):
    """How a back end lays out a layer's cache."""

    @property
    def spare_blocks(self) -> int:
        """Blocks that `allocate` adds to those it is asked for: they belong to no sequence."""
        ...

    def allocate(
        self, num_blocks: int, shape: BlockShape, dtype: torch.dtype, device: torch.device
    ) -> Any:
        """A layer's K and V in `num_blocks` zeroed blocks and the spare ones."""
        ...

    def allocate_layers(
        self,
        num_layers: int,
        num_blocks: int,
        shape: BlockShape,
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[Any, ...]:
        """`allocate` for each layer."""
        ...

    def bytes_per_block(self, shape: BlockShape, dtype: torch.dtype) -> int:
        """Bytes of one block of a layer, K and V."""
        ...


class RowFormat:
    """K and V of `(num_blocks, heads, block_size, row_width)`: the reference's and the CPU's."""

    spare_blocks = 0

    def allocate(
        self, num_blocks: int, shape: BlockShape, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        width = row_width(shape.head_dim, dtype)
        size = (num_blocks, shape.num_heads, shape.block_size, width)
        # Zeroed, since a masked slot is multiplied by 0, and 0 * NaN would not be 0.
        k, v = (lazy_zeros(size, dtype, device) for _ in range(2))
        return k, v

    def allocate_layers(
        self,
        num_layers: int,
        num_blocks: int,
        shape: BlockShape,
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[tuple[Tensor, Tensor], ...]:
        layers = range(num_layers)
        return tuple(self.allocate(num_blocks, shape, dtype, device) for _ in layers)

    def bytes_per_block(self, shape: BlockShape, dtype: torch.dtype) -> int:
        num_rows = 2 * shape.num_heads * shape.block_size
        return num_rows * row_width(shape.head_dim, dtype) * dtype.itemsize


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
