"""A rank's paged KV cache.

The keys and values of a sequence are in blocks of `block_size` slots, which its block table lists
in order. The BlockManager assigns blocks to sequences.
"""

from dataclasses import dataclass
from typing import Self

import torch

from moss_tp.config import ModelConfig
from moss_tp.kernels.base import LayerCache
from moss_tp.kernels.kv_cache import BlockShape, CacheFormat, RowFormat
from moss_tp.parallel.tp_group import TPGroup

ROWS = RowFormat()


@dataclass(frozen=True)
class KVCache:
    """K and V of every layer for this rank's heads, as a `CacheFormat` allocates them."""

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
        cache_format: CacheFormat = ROWS,
    ) -> Self:
        """`num_blocks` zeroed blocks, and the format's spare ones, on the group's device.

        `cache_format` is that of the kernels which will read it, `Kernels.cache`."""
        shape = _shape(config, group.size, block_size)
        layers = cache_format.allocate_layers(
            config.num_layers, num_blocks, shape, dtype, group.device
        )
        return cls(layers, block_size)

    @staticmethod
    def bytes_per_block(
        config: ModelConfig,
        tp_size: int,
        block_size: int,
        dtype: torch.dtype,
        cache_format: CacheFormat = ROWS,
    ) -> int:
        """Bytes of one block on one rank, over all layers; `cache_format.spare_blocks` more are
        allocated than a caller asks for."""
        shape = _shape(config, tp_size, block_size)
        return config.num_layers * cache_format.bytes_per_block(shape, dtype)


def _shape(config: ModelConfig, tp_size: int, block_size: int) -> BlockShape:
    return BlockShape(config.num_heads // tp_size, block_size, config.head_dim)
