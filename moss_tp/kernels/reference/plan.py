"""The reference's plan of a step: gather indices and masks, as tensors on the device.

Sequences with few rows (decodes, drafted tokens) attend row by row, so that a row's result does
not depend on how many are verified with it. Longer ones attend as chunks, one by one.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.plan import AttentionPlan, Ints

MAX_SINGLE_ROWS = 8  # of a sequence; one with more is a chunk


@dataclass(frozen=True)
class Chunk:
    """The rows of one sequence over its `context` tokens."""

    rows: slice
    context: int
    block_table: Tensor  # (1, blocks of the context) int64
    mask: Tensor  # (queries, context) bool: the last query sees everything, each before it less


@dataclass(frozen=True)
class ReferencePlan:
    positions: Tensor  # (T,) int64
    blocks: Tensor  # (T,) int64: the block that each row's K and V go to,
    offsets: Tensor  # (T,) int64: and the offset in it
    rows: Tensor  # (D,) int64: rows that attend one by one
    row_tables: Tensor  # (D, blocks of their longest context) int64
    row_mask: Tensor  # (D, 1, 1, blocks * block_size) bool: hides what is beyond a row's context
    chunks: tuple[Chunk, ...]

    @classmethod
    def make(cls, plan: AttentionPlan, device: torch.device) -> Self:
        seq_of_row = np.repeat(np.arange(plan.num_seqs), plan.query_lens)
        rows = np.flatnonzero(plan.query_lens[seq_of_row] <= MAX_SINGLE_ROWS)
        contexts = plan.positions[rows] + 1
        num_blocks = -(-int(contexts.max(initial=0)) // plan.block_size)
        tokens = np.arange(num_blocks * plan.block_size)

        def tensor(array: Ints) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            positions=tensor(plan.positions),
            blocks=tensor(plan.slot_mapping // plan.block_size),
            offsets=tensor(plan.slot_mapping % plan.block_size),
            rows=tensor(rows),
            row_tables=tensor(plan.block_tables[seq_of_row[rows], :num_blocks]),
            row_mask=torch.from_numpy(tokens < contexts[:, None])[:, None, None].to(device),
            chunks=tuple(_chunks(plan, device)),
        )


@lru_cache(maxsize=8)
def reference_plan(plan: AttentionPlan, device: torch.device) -> ReferencePlan:
    """Cached, so that all layers of a step share it; keyed by the plan's identity."""
    return ReferencePlan.make(plan, device)


def _chunks(plan: AttentionPlan, device: torch.device) -> list[Chunk]:
    chunks = []
    starts = [0, *np.cumsum(plan.query_lens).tolist()]
    for seq, (start, stop) in enumerate(pairwise(starts)):
        if stop - start <= MAX_SINGLE_ROWS:
            continue
        context = int(plan.context_lens[seq])
        table = plan.block_tables[seq : seq + 1, : -(-context // plan.block_size)]
        mask = torch.ones(stop - start, context, dtype=torch.bool, device=device)
        mask = mask.tril(context - (stop - start))
        block_table = torch.from_numpy(table).to(device)
        chunks.append(Chunk(slice(start, stop), context, block_table, mask))
    return chunks
