"""A layer's paged K and V on CUDA.

Rows of a head size that is a multiple of 16 start at multiples of 16 bytes, so that kernels can
load 16 bytes at once. In int8 the scales have planes of their own for that: beside a row they would
shift the next one by four bytes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from moss_tp.kernels.kv_cache import SCALE_BYTES, BlockShape

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.int8)


class PagedCache(NamedTuple):
    """The last block belongs to no sequence: idle rows of a step write to it."""

    k: Tensor  # (num_blocks + 1, H, block_size, D)
    v: Tensor
    k_scales: Tensor | None = None  # (num_blocks + 1, H, block_size) fp32, only in int8:
    v_scales: Tensor | None = None  # a row is its int8 elements times its scale

    @property
    def spare_block(self) -> int:
        return self.k.shape[0] - 1


class PagedFormat:
    """The CUDA back end's `CacheFormat`."""

    spare_blocks = 1

    def allocate(
        self, num_blocks: int, shape: BlockShape, dtype: torch.dtype, device: torch.device
    ) -> PagedCache:
        """Zeroed. Raises ValueError for a dtype or block size that kernels cannot read."""
        if dtype not in DTYPES:
            raise ValueError(f"a paged cache holds no {dtype}")
        if shape.block_size < 8 or shape.block_size & (shape.block_size - 1):
            raise ValueError(f"block size {shape.block_size} is not a power of two from 8")
        slots = (num_blocks + self.spare_blocks, shape.num_heads, shape.block_size)
        k, v = (torch.zeros(*slots, shape.head_dim, dtype=dtype, device=device) for _ in range(2))
        if dtype != torch.int8:
            return PagedCache(k, v)
        scales = (torch.zeros(slots, dtype=torch.float32, device=device) for _ in range(2))
        return PagedCache(k, v, *scales)

    def allocate_layers(
        self,
        num_layers: int,
        num_blocks: int,
        shape: BlockShape,
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[PagedCache, ...]:
        """Parts of one allocation for K and one for V, and two for scales: torch's allocator rounds
        each up to 2 MiB, which would be hundreds of MiB with allocations of every layer's own."""
        each = num_blocks + self.spare_blocks
        whole = self.allocate(num_layers * each - self.spare_blocks, shape, dtype, device)
        parts = [[None] * num_layers if one is None else torch.split(one, each) for one in whole]
        return tuple(PagedCache(*layer) for layer in zip(*parts, strict=True))

    def bytes_per_block(self, shape: BlockShape, dtype: torch.dtype) -> int:
        row = shape.head_dim * dtype.itemsize
        if dtype == torch.int8:
            row += SCALE_BYTES
        return 2 * shape.num_heads * shape.block_size * row
