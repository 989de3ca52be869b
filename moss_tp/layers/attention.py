"""Attention over a paged KV cache, and the tensors of a step that it needs.

A sequence's keys and values lie in blocks of `block_size` slots; its block table names them in
order. Which sequence owns which block is the BlockManager's, not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from moss_tp.config import ModelConfig
from moss_tp.kernels import attend_paged
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.layers.linear import QKVParallelLinear, RowParallelLinear
from moss_tp.layers.rotary import Rotary
from moss_tp.parallel.tp_group import TPGroup


@dataclass(frozen=True)
class BatchTensors:
    """One step: S sequences with T rows in all, each sequence's rows side by side.

    `context_lens` counts a sequence's tokens including this step's. A slot is
    `block * block_size + offset`.
    """

    token_ids: Tensor  # (T,) int64
    positions: Tensor  # (T,) int64
    slot_mapping: Tensor  # (T,) int64
    query_starts: Tensor  # (S + 1,) int64
    query_lens: Sequence[int]  # S
    context_lens: Sequence[int]  # S
    block_tables: Sequence[Sequence[int]] | Tensor  # S rows, at least as long as the context
    logit_rows: Tensor  # (R,) int64: flat rows whose logits are wanted


@dataclass(frozen=True)
class KVCache:
    """This rank's keys and values: one pair `(num_blocks, block_size, heads, head_dim)` a
    layer."""

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
        shape = (num_blocks, block_size, config.num_heads // group.size, config.head_dim)

        # Zeros: a masked slot is multiplied by 0, and 0 * NaN would not be 0.
        def cache() -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=group.device)

        return cls(tuple((cache(), cache()) for _ in range(config.num_layers)), block_size)

    @staticmethod
    def bytes_per_block(
        config: ModelConfig, tp_size: int, block_size: int, dtype: torch.dtype
    ) -> int:
        """Bytes of one block on one rank, over all layers."""
        values = 2 * config.num_layers * block_size * config.hidden_size // tp_size
        return values * dtype.itemsize


class Attention(nn.Module):
    """`x (T, hidden) -> (T, hidden)`: this rank's heads' partial sum."""

    def __init__(self, config: ModelConfig, group: TPGroup, dtype: torch.dtype) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.qkv_proj = QKVParallelLinear(hidden, config.num_heads, config.head_dim, group, dtype)
        self.out_proj = RowParallelLinear(hidden, hidden, group, dtype, bias=False)
        self._scale = config.head_dim**-0.5

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        angles: tuple[Tensor, Tensor],
        cache: tuple[Tensor, Tensor],
        plan: AttentionPlan,
    ) -> Tensor:
        q, k, v = self.qkv_proj(x)  # (T, heads / tp_size, head_dim) each
        q, k = rotary.rotate(q, angles), rotary.rotate(k, angles)
        out = attend_paged(q, k, v, cache, plan, self._scale)
        partial: Tensor = self.out_proj(out.flatten(1))
        return partial
