"""Which rows of a step attend to which slots of the KV cache: made once, used by every layer.

Sequences with few query tokens (decodes, speculated tokens) become rows that attend one by one,
longer ones stay chunks, cut into tiles. So a short query's result is the same to the bit, however
many tokens are verified with it. The plan knows slots, no requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_SINGLE_QUERIES = 8
MAX_TILE_QUERIES = 96

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """A sequence's queries `rows` of the flat batch over its own `context` tokens."""

    rows: slice
    context: int
    table: int  # which row of chunk_tables

    def mask(self, device: torch.device) -> Tensor:
        """`(queries, context)` bool: the last query sees everything, each before it one less."""
        length = self.rows.stop - self.rows.start
        mask = torch.ones(length, self.context, dtype=torch.bool, device=device)
        return mask.tril(self.context - length)


@dataclass(frozen=True)
class AttentionPlan:
    """Every sequence is either in `rows`, once for each of its queries, or in `chunks`."""

    positions: Tensor  # (T,) int64
    slot_mapping: Tensor  # (T,) int64: where each row's K and V go
    block_size: int
    rows: Tensor  # (D,) int64
    row_contexts: Tensor  # (D,) int64: how many tokens each sees, itself included
    row_tables: Tensor  # (D, blocks of max_row_context) int64; beyond a context any block
    max_row_context: int
    chunks: tuple[Chunk, ...]  # C
    chunk_tables: Tensor  # (C, max_blocks) int64; beyond a context any block
    # What a kernel made for this step in its first layer and uses again in the others.
    prepared: dict[object, Any] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        positions: Tensor,
        slot_mapping: Tensor,
        query_lens: Sequence[int] | Ints,
        context_lens: Sequence[int] | Ints,
        block_tables: Tensor,
        block_size: int,
    ) -> Self:
        """`context_lens` counts a sequence's tokens including this step's; `block_tables
        (S, max_blocks)` int64 are long enough for them."""
        row = 0
        rows: list[int] = []
        contexts: list[int] = []
        chunks: list[Chunk] = []
        row_seqs: list[int] = []
        chunk_seqs: list[int] = []
        for seq, (query, context) in enumerate(
            zip(*(np.asarray(lens).tolist() for lens in (query_lens, context_lens)), strict=True)
        ):
            if query > MAX_SINGLE_QUERIES:
                chunks.append(Chunk(slice(row, row + query), context, len(chunks)))
                chunk_seqs.append(seq)
            else:
                rows.extend(range(row, row + query))
                contexts.extend(range(context - query + 1, context + 1))
                row_seqs.extend([seq] * query)
            row += query
        device, max_row_context = slot_mapping.device, max(contexts, default=0)
        return cls(
            positions,
            slot_mapping,
            block_size,
            torch.tensor(rows, dtype=torch.int64, device=device),
            torch.tensor(contexts, dtype=torch.int64, device=device),
            block_tables[row_seqs, : -(-max_row_context // block_size)],
            max_row_context,
            tuple(chunks),
            block_tables[chunk_seqs],
        )

    @cached_property
    def row_mask(self) -> Tensor:
        """`(D, 1, 1, max_blocks * block_size)` bool: hides what is beyond each row's context."""
        width = self.row_tables.shape[1] * self.block_size
        slots = torch.arange(width, device=self.rows.device)
        return (slots < self.row_contexts[:, None])[:, None, None]

    @cached_property
    def chunk_masks(self) -> tuple[Tensor, ...]:
        return tuple(chunk.mask(self.rows.device) for chunk in self.chunks)

    @cached_property
    def tiles(self) -> Tensor:
        """`(N, 4)` int64: first row, number of rows, how many tokens the first row sees, and
        which chunk. Those with most to look at come first."""
        tiles = []
        for chunk in self.chunks:
            before = chunk.context - chunk.rows.stop  # row + before: tokens ahead of a row
            for start in range(chunk.rows.start, chunk.rows.stop, MAX_TILE_QUERIES):
                count = min(MAX_TILE_QUERIES, chunk.rows.stop - start)
                tiles.append((start, count, start + before + 1, chunk.table))
        tiles.sort(key=lambda tile: -tile[2])
        return torch.tensor(tiles, dtype=torch.int64).view(-1, 4)
