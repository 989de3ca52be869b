"""Fills a step's block of ints from a Batch. numpy only, no loop over rows or sequences."""

import numpy as np
from numpy.typing import NDArray

from moss_tp.engine.graphs.layout import Part, StepLayout
from moss_tp.engine.graphs.step_views import StepShape
from moss_tp.engine.scheduling.batch import Batch, Ints
from moss_tp.kernels.device_plan import LONG_ROWS, SHORT_ROWS

Block = NDArray[np.int32]


class StepInput:
    """Writes to one block `(layout.num_ints,)`. What it leaves there from steps before is valid:
    table entries beyond a context are blocks of the cache.

    Idle rows write their K and V to slot `spare_slot`.
    """

    def __init__(self, block: Block, layout: StepLayout, block_size: int, spare_slot: int) -> None:
        self._block_size = block_size
        self._spare_slot = spare_slot
        self._token_ids = _part(block, layout.token_ids)
        self._positions = _part(block, layout.positions)
        self._slots = _part(block, layout.slots)
        self._max_seqs = layout.max_seqs
        self._tables = _part(block, layout.block_tables)
        self._width = layout.block_tables.size // layout.max_seqs
        self._short_tiles = _part(block, layout.short_tiles).reshape(-1, 3)
        self._long_tiles = _part(block, layout.long_tiles).reshape(-1, 3)
        self._logit_rows = _part(block, layout.logit_rows)
        rows = np.arange(layout.max_seqs, dtype=np.int32)
        self._decode_tiles = np.stack((rows, rows, rows + 1), axis=1)
        self._table_starts = rows * np.int64(self._width)

    def fill(self, batch: Batch, bucket: int | None) -> StepShape:
        """The shape that the step has on the device: a graph's of `bucket` rows, else the batch's.

        `batch` has at most `bucket` rows, and no chunk of more than SHORT_ROWS then.
        """
        if batch.has_single_rows:
            self._fill_decodes(batch)
            num_short, num_long = len(batch.query_lens), 0
        else:
            num_short, num_long = self._fill_chunks(batch)
        self._fill_tables(batch)
        num_rows, num_seqs, num_logits = self._fill_common(batch)
        if bucket is None:
            return StepShape(num_rows, num_seqs, num_short, num_long, num_logits)
        shape = self.shape_of(bucket)
        if num_rows < bucket:
            self._slots[num_rows:bucket] = self._spare_slot
            self._token_ids[num_rows:bucket] = self._positions[num_rows:bucket] = 0
        self._short_tiles[num_short : shape.short_tiles] = 0
        self._logit_rows[num_logits : shape.logit_rows] = 0
        return shape

    def shape_of(self, bucket: int) -> StepShape:
        """Of a graph with `bucket` rows: as many sequences as fit into them, each row sampled."""
        num_seqs = min(bucket, self._max_seqs)
        return StepShape(bucket, num_seqs, num_seqs, 0, bucket)

    def _fill_common(self, batch: Batch) -> tuple[int, int, int]:
        num_rows, num_seqs = len(batch.token_ids), len(batch.query_lens)
        self._token_ids[:num_rows] = batch.token_ids
        logit_rows = batch.logit_rows
        self._logit_rows[: len(logit_rows)] = logit_rows
        return num_rows, num_seqs, len(logit_rows)

    def _fill_decodes(self, batch: Batch) -> None:
        """One row a sequence, the last of its context."""
        num_rows, size = len(batch.query_lens), self._block_size
        positions = self._positions[:num_rows]
        np.subtract(batch.context_lens, 1, out=positions, casting="unsafe")
        last_blocks = batch.block_tables[batch.table_starts[1:] - 1]
        self._slots[:num_rows] = last_blocks * size + positions % size
        self._short_tiles[:num_rows] = self._decode_tiles[:num_rows]

    def _fill_chunks(self, batch: Batch) -> tuple[int, int]:
        """How many short and long tiles there are."""
        num_rows = len(batch.token_ids)
        self._positions[:num_rows] = batch.positions
        self._slots[:num_rows] = batch.slots(self._block_size)
        is_short = batch.query_lens <= SHORT_ROWS
        short, long = np.flatnonzero(is_short), np.flatnonzero(~is_short)
        starts = batch.query_starts
        tiles = self._short_tiles[: len(short)]
        tiles[:, 0], tiles[:, 1], tiles[:, 2] = short, starts[short], starts[short + 1]
        return len(short), self._fill_long_tiles(long, starts) if len(long) else 0

    def _fill_long_tiles(self, seqs: Ints, starts: Ints) -> int:
        """Each sequence in pieces of LONG_ROWS rows; the last may be shorter."""
        ends = starts[seqs + 1]
        counts = -(-(ends - starts[seqs]) // LONG_ROWS)
        total = int(counts.sum())
        place = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        first = np.repeat(starts[seqs], counts) + place * LONG_ROWS
        tiles = self._long_tiles[:total]
        tiles[:, 0], tiles[:, 1] = np.repeat(seqs, counts), first
        tiles[:, 2] = np.minimum(first + LONG_ROWS, np.repeat(ends, counts))
        return total

    def _fill_tables(self, batch: Batch) -> None:
        """Each table at the start of its row."""
        lens, tables = batch.table_lens, batch.block_tables
        if len(lens) == 1:
            self._tables[: len(tables)] = tables
            return
        shifts = self._table_starts[: len(lens)] - batch.table_starts[:-1]
        self._tables[np.arange(len(tables)) + np.repeat(shifts, lens)] = tables


def _part(block: Block, part: Part) -> Block:
    return block[part.span]
