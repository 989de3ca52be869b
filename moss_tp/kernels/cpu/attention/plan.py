"""The CPU's plan of a step: its rows in tiles, whose tasks are made in two ways.

A tile is neighbouring rows of one sequence, which share what is read of its context. How rows are
cut into tiles is a matter of speed only: a row's result is the same to the bit in any tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np

from moss_tp.kernels.plan import AttentionPlan, Ints
from moss_tp.native.params import Address

MAX_DECODE_QUERIES = 8  # of a sequence; one with more is prefilled
MAX_TILE_QUERIES = 96
SPLIT = 512  # tokens of context that are summed on their own, then merged


class StepAddresses(NamedTuple):
    """What kernels read of a step. They get its address, so a program that is kept for the next
    step needs only new values in here."""

    positions: Address  # (T,)
    slot_mapping: Address  # (T,)
    tiles: Address  # (N,) Tile: those that decode, then those that prefill
    block_tables: Address  # (S, table_stride)
    table_stride: int


class Tile(NamedTuple):
    """Neighbouring rows of a sequence: all that it has if it decodes, else MAX_TILE_QUERIES."""

    row: int  # the first
    num_rows: int
    context: int  # tokens that the first row sees, itself included
    seq: int
    before: int  # rows of the tiles before it, where it decodes


@dataclass(frozen=True, eq=False)
class CpuPlan:
    """T rows in N tiles."""

    num_rows: int
    num_decode_rows: int
    num_splits: int  # of the longest context of the decode rows
    num_decode_tiles: int
    num_prefill_tiles: int
    step: Ints  # StepAddresses
    arrays: tuple[Ints, ...]  # those that `step` points into

    @classmethod
    def make(cls, plan: AttentionPlan) -> Self:
        decodes = _decodes(plan)
        prefills = _prefills(plan) if len(decodes) < plan.num_seqs else _NO_TILES
        tiles = np.concatenate((decodes, prefills))
        seen = decodes[:, _CONTEXT] + decodes[:, _NUM_ROWS] - 1
        arrays = (plan.positions, plan.slot_mapping, tiles, plan.block_tables)
        step = [array.ctypes.data for array in arrays] + [plan.block_tables.shape[1]]
        return cls(
            num_rows=plan.num_rows,
            num_decode_rows=int(decodes[:, _NUM_ROWS].sum()),
            num_splits=-(-int(seen.max(initial=0)) // SPLIT),
            num_decode_tiles=len(decodes),
            num_prefill_tiles=len(prefills),
            step=np.array(step),
            arrays=arrays,
        )

    @property
    def layout(self) -> tuple[int, ...]:
        """Equal for steps that the same program can run."""
        tiles = (self.num_decode_tiles, self.num_prefill_tiles)
        return (self.num_rows, self.num_decode_rows, self.num_splits, *tiles)


@lru_cache(maxsize=8)
def cpu_plan(plan: AttentionPlan) -> CpuPlan:
    """Cached, so that all layers of a step share it; keyed by the plan's identity."""
    return CpuPlan.make(plan)


_NUM_ROWS, _CONTEXT = (Tile._fields.index(name) for name in ("num_rows", "context"))
_NO_TILES: Ints = np.empty((0, len(Tile._fields)), np.int64)


def _decodes(plan: AttentionPlan) -> Ints:
    lens = plan.query_lens
    (seqs,) = np.nonzero(lens <= MAX_DECODE_QUERIES)
    own = lens[seqs]
    rows, before = (np.cumsum(counts) - counts for counts in (lens, own))
    contexts = plan.context_lens[seqs] - own + 1
    return np.stack((rows[seqs], own, contexts, seqs, before), axis=1)


def _prefills(plan: AttentionPlan) -> Ints:
    """Those with the longest context first: tasks that start last should be short."""
    tiles = sorted(_long_tiles(plan), key=lambda tile: -tile.context)
    return np.array(tiles, np.int64).reshape(-1, len(Tile._fields))


def _long_tiles(plan: AttentionPlan) -> Iterator[Tile]:
    stop = 0
    for seq, query_len in enumerate(plan.query_lens.tolist()):
        first, stop = stop, stop + query_len
        if query_len <= MAX_DECODE_QUERIES:
            continue
        hidden = int(plan.context_lens[seq]) - stop  # row + hidden: tokens ahead of a row
        for row in range(first, stop, MAX_TILE_QUERIES):
            count = min(MAX_TILE_QUERIES, stop - row)
            yield Tile(row, count, row + hidden + 1, seq, before=0)
