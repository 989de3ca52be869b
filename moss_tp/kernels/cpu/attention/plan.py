"""The CPU's plan of a step: which rows attend as decode rows, and which in prefill tiles.

Sequences with few query rows (decodes, drafted tokens) attend row by row. So such a row has the
same result to the bit, however many rows are verified with it. Longer ones are cut into tiles.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np

from moss_tp.kernels.plan import AttentionPlan, Ints
from moss_tp.native.params import Address

MAX_DECODE_QUERIES = 8  # of a sequence; one with more is prefilled
MAX_TILE_QUERIES = 96
DECODE_SPLIT = 512  # tokens of context that one decode task reads


class StepAddresses(NamedTuple):
    """What kernels read of a step. They get its address, so a program that is kept for the next
    step needs only new values in here."""

    positions: Address  # (T,)
    slot_mapping: Address  # (T,)
    decode_rows: Address  # (D,): flat row
    decode_seqs: Address  # (D,): the sequence it belongs to
    tiles: Address  # (N,) Tile
    block_tables: Address  # (S, table_stride)
    table_stride: int


class Tile(NamedTuple):
    """Up to MAX_TILE_QUERIES neighbouring rows of a sequence."""

    row: int  # the first
    num_rows: int
    context: int  # tokens that the first row sees, itself included
    seq: int


@dataclass(frozen=True, eq=False)
class CpuPlan:
    """T rows, of which D decode; N tiles."""

    num_rows: int
    num_decode_rows: int
    num_splits: int  # of the longest context of the decode rows
    num_tiles: int
    step: Ints  # StepAddresses
    arrays: tuple[Ints, ...]  # those that `step` points into

    @classmethod
    def make(cls, plan: AttentionPlan) -> Self:
        if plan.num_rows == plan.num_seqs:
            rows = seqs = np.arange(plan.num_rows)
            tiles, max_context = _NO_TILES, int(plan.context_lens.max(initial=0))
        else:
            rows, seqs, max_context = _decode_rows(plan)
            tiles = _tiles(plan)
        arrays = (plan.positions, plan.slot_mapping, rows, seqs, tiles, plan.block_tables)
        step = [array.ctypes.data for array in arrays] + [plan.block_tables.shape[1]]
        num_splits = -(-max_context // DECODE_SPLIT)
        return cls(plan.num_rows, len(rows), num_splits, len(tiles), np.array(step), arrays)

    @property
    def layout(self) -> tuple[int, ...]:
        """Equal for steps that the same program can run."""
        return (self.num_rows, self.num_decode_rows, self.num_splits, self.num_tiles)


@lru_cache(maxsize=8)
def cpu_plan(plan: AttentionPlan) -> CpuPlan:
    """Cached, so that all layers of a step share it; keyed by the plan's identity."""
    return CpuPlan.make(plan)


_NO_TILES: Ints = np.empty((0, len(Tile._fields)), np.int64)


def _decode_rows(plan: AttentionPlan) -> tuple[Ints, Ints, int]:
    is_decode = plan.query_lens <= MAX_DECODE_QUERIES
    seq_of_row = np.repeat(np.arange(plan.num_seqs), plan.query_lens)
    rows = np.flatnonzero(is_decode[seq_of_row])
    return rows, seq_of_row[rows], int(plan.context_lens[is_decode].max(initial=0))


def _tiles(plan: AttentionPlan) -> Ints:
    """Those with the longest context first: tasks that start last should be short."""
    tiles: list[Tile] = []
    stop = 0
    for seq, query_len in enumerate(plan.query_lens.tolist()):
        first, stop = stop, stop + query_len
        if query_len <= MAX_DECODE_QUERIES:
            continue
        before = int(plan.context_lens[seq]) - stop  # row + before: tokens ahead of a row
        for row in range(first, stop, MAX_TILE_QUERIES):
            count = min(MAX_TILE_QUERIES, stop - row)
            tiles.append(Tile(row, count, row + before + 1, seq))
    tiles.sort(key=lambda tile: -tile.context)
    return np.array(tiles, np.int64).reshape(-1, len(Tile._fields))
