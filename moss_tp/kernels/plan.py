"""Which rows of a step attend to which slots of the KV cache: made once, used by every layer.

Sequences with one query token (decodes) are laid out as one padded batch, longer chunks stay
apart. It knows slots, no requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

BlockTables = Sequence[Sequence[int]] | Tensor


@dataclass(frozen=True)
class Chunk:
    """A sequence's queries `rows` of the flat batch over its own `context` tokens."""

    rows: slice
    context: int
    block_table: Tensor  # (ceil(context / block_size),) int64
    mask: Tensor  # (queries, context) bool: what each query sees


@dataclass(frozen=True)
class AttentionPlan:
    """`slot_mapping (T,)`: where each row's K and V go. `decode_rows` may be empty, and then
    `decode_tables` and `decode_mask` are too."""

    slot_mapping: Tensor  # (T,) int64
    decode_rows: Tensor  # (D,) int64
    decode_tables: Tensor  # (D, max_blocks) int64, padded with block 0
    decode_mask: Tensor  # (D, 1, 1, max_blocks * block_size) bool
    chunks: tuple[Chunk, ...]

    @classmethod
    def make(
        cls,
        slot_mapping: Tensor,
        query_lens: Sequence[int],
        context_lens: Sequence[int],
        block_tables: BlockTables,
        block_size: int,
    ) -> Self:
        """`context_lens` counts a sequence's tokens including this step's."""
        device = slot_mapping.device
        tables = block_tables.tolist() if isinstance(block_tables, Tensor) else block_tables
        row, decode_rows, decodes, chunks = 0, [], [], []
        for query, context, table in zip(query_lens, context_lens, tables, strict=True):
            own_blocks = list(table[: -(-context // block_size)])
            if query == 1:
                decode_rows.append(row)
                decodes.append((context, own_blocks))
            elif query > 1:
                rows = slice(row, row + query)
                chunks.append(_chunk(rows, context, own_blocks, device))
            row += query
        tables_tensor, mask = _decode_tables(decodes, block_size, device)
        rows_tensor = torch.tensor(decode_rows, dtype=torch.int64, device=device)
        return cls(slot_mapping, rows_tensor, tables_tensor, mask, tuple(chunks))


def _chunk(rows: slice, context: int, blocks: list[int], device: torch.device) -> Chunk:
    length = rows.stop - rows.start
    mask = torch.ones(length, context, dtype=torch.bool, device=device)
    table = torch.tensor(blocks, dtype=torch.int64, device=device)
    # The last query sees everything, each one before it one token less.
    return Chunk(rows, context, table, mask.tril(context - length))


def _decode_tables(
    decodes: Sequence[tuple[int, list[int]]], block_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Padded block tables, and the mask that hides what is beyond each sequence's context."""
    width = max((len(blocks) for _, blocks in decodes), default=0)
    padded = [blocks + [0] * (width - len(blocks)) for _, blocks in decodes]
    tables = torch.tensor(padded, dtype=torch.int64, device=device).view(len(decodes), width)
    contexts = torch.tensor([context for context, _ in decodes], device=device)
    mask = torch.arange(width * block_size, device=device) < contexts[:, None]
    return tables, mask[:, None, None]
