"""A rank's paged KV cache.

The keys and values of a sequence are in blocks of `block_size` slots, which its block table lists
in order. The BlockManager assigns blocks to sequences.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.kernels.base import LayerCache
from moss_tp.kernels.kv_cache import row_width
from moss_tp.parallel.tp_group import TPGroup


@dataclass(frozen=True)
class KVCache:
    """K and V of every layer for this rank's heads, `(num_blocks, heads, block_size, width)`.

    A head's part of a block is contiguous; in which order it holds its elements is the kernels'
    own matter, see `kernels.kv_cache`. `width` is the head size, and in int8 four bytes more for
    a scale.
    """

    layers: tuple[LayerCache, ...]
    block_size: int

    @classmethod
    def allocate(
        cls,
        config: ModelConfig,
        group: TPGroup,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
    ) -> Self:
        """`num_blocks` zeroed blocks on the group's device."""
        width = row_width(config.head_dim, dtype)
        shape = (num_blocks, config.num_heads // group.size, block_size, width)

        # Zeroed, since a masked slot is multiplied by 0, and 0 * NaN would not be 0.
        def zeros() -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=group.device)

        return cls(tuple((zeros(), zeros()) for _ in range(config.num_layers)), block_size)

    @staticmethod
    def bytes_per_block(
        config: ModelConfig, tp_size: int, block_size: int, dtype: torch.dtype
    ) -> int:
        """Bytes of one block on one rank, over all layers."""
        num_rows = 2 * config.num_layers * block_size * (config.num_heads // tp_size)
        return num_rows * row_width(config.head_dim, dtype) * dtype.itemsize
