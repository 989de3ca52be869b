"""Attention over a paged KV cache, and the tensors of a step that it needs.

A sequence's keys and values lie in blocks of `block_size` slots; its block table names them in
order. Which sequence owns which block is the BlockManager's, not known here.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moss_tp.config import ModelConfig
from moss_tp.kernels.checks import row_width
from moss_tp.layers.linear import QKVParallelLinear, RowParallelLinear
from moss_tp.parallel.tp_group import TPGroup

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BatchTensors:
    """One step: S sequences with T rows in all, each sequence's rows side by side.

    `context_lens` counts a sequence's tokens including this step's. A slot is
    `block * block_size + offset`.
    """

    token_ids: Tensor  # (T,) int64
    positions: Tensor  # (T,) int64
    slot_mapping: Tensor  # (T,) int64
    query_lens: Ints  # (S,)
    context_lens: Ints  # (S,)
    block_tables: Tensor  # (S, max_blocks) int64, each long enough for its context
    logit_rows: Tensor  # (R,) int64: flat rows whose logits are wanted


@dataclass(frozen=True)
class KVCache:
    """This rank's keys and values: one pair `(num_blocks, heads, block_size, head_dim)` a
    layer, so that what a head reads of a block lies side by side. In int8 each row ends with the
    bytes of its scale."""

    layers: tuple[tuple[Tensor, Tensor], ...]
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
        width = row_width(config.head_dim, dtype)
        shape = (num_blocks, config.num_heads // group.size, block_size, width)

        # Zeros: a masked slot is multiplied by 0, and 0 * NaN would not be 0.
        def cache() -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=group.device)

        return cls(tuple((cache(), cache()) for _ in range(config.num_layers)), block_size)

    @staticmethod
    def bytes_per_block(
        config: ModelConfig, tp_size: int, block_size: int, dtype: torch.dtype
    ) -> int:
        """Bytes of one block on one rank, over all layers."""
        rows = 2 * config.num_layers * block_size * (config.num_heads // tp_size)
        return rows * row_width(config.head_dim, dtype) * dtype.itemsize


class Attention(nn.Module):
    """The parameters around a block's attention, for this rank's heads."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.qkv_proj = QKVParallelLinear(hidden, group, dtype)
        self.out_proj = RowParallelLinear(hidden, hidden, group, dtype, bias=False)
