"""What one step computes, as one flat array of ints: all that rank 0 sends to the other ranks.

    | S | query_lens | context_lens | num_logits | table_lens | token_ids | block_tables |
      1   S            S              S            S            T           sum of table_lens

The array is built once, broadcast as it is, and read through views on every rank. It holds no
text and no sampling settings, and needs no torch. With N rows of prompts to score, this is before
it:

    | -1 - N | scored_rows | targets |
      1        N             N
"""

from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moss_tp.engine.scheduling.chunk import Chunk
from moss_tp.engine.scheduling.scored import Scored

Ints = NDArray[np.int64]

_NONE: Ints = np.empty(0, np.int64)


class Batch:
    """S chunks of T tokens in all: one chunk a sequence, a decode is a chunk of one token.

    `query_lens (S,)` counts a chunk's tokens, `context_lens (S,)` the sequence's tokens up to the
    end of its chunk. After each of the last `num_logits (S,)` tokens of a chunk the next token is
    sampled: none while the prompt continues after the chunk, otherwise one, and one more for each
    drafted token at the chunk's end. `block_tables` are the sequences' tables one after the
    other, `table_lens (S,)` blocks each: just enough for the context. The logprob of
    `targets (N,)` is wanted after the rows `scored_rows (N,)`, see `scored.py`.
    """

    def __init__(self, ints: Ints) -> None:
        """Views of `ints`, laid out as above."""
        self.ints = ints
        self.scored_rows = self.targets = _NONE
        num_seqs = int(ints[0])
        if num_seqs < 0:
            end = -1 - num_seqs
            self.scored_rows, self.targets = ints[1 : 1 + end], ints[1 + end : 1 + 2 * end]
            ints = ints[1 + 2 * end :]
            num_seqs = int(ints[0])
        head = 1 + 4 * num_seqs
        lens: Ints = ints[1:head].reshape(4, num_seqs)
        self.query_lens: Ints = lens[0]
        self.context_lens: Ints = lens[1]
        self.num_logits: Ints = lens[2]
        self.table_lens: Ints = lens[3]
        num_tokens = int(self.query_lens.sum())
        self.token_ids: Ints = ints[head : head + num_tokens]
        self.block_tables: Ints = ints[head + num_tokens :]

    @classmethod
    def of(cls, chunks: Sequence[Chunk], block_size: int) -> Self:
        """The batch of one step's `chunks`, before `Scheduler.update` has advanced them."""
        query_lens, context_lens, num_logits, table_lens = [], [], [], []
        token_ids: list[int] = []
        tables: list[array[int]] = []
        for seq, num_known, is_sampled, draft in chunks:
            start, query_len, table = seq.num_computed, num_known + len(draft), seq.block_table
            context = start + query_len
            table_len = -(-context // block_size)
            query_lens.append(query_len)
            context_lens.append(context)
            num_logits.append(is_sampled + len(draft))
            table_lens.append(table_len)
            if query_len == 1:
                token_ids.append(seq.token_ids[start])
            else:
                token_ids += seq.token_ids[start : start + num_known]
                token_ids += draft
            tables.append(table if len(table) == table_len else table[:table_len])
        lens = (*query_lens, *context_lens, *num_logits, *table_lens)
        head = array("q", (len(chunks), *lens, *token_ids))
        return cls(np.frombuffer(bytearray().join((head, *tables)), np.int64))

    @property
    def has_single_rows(self) -> bool:
        """Whether each chunk is of one token, as in a step that only decodes."""
        return len(self.token_ids) == len(self.query_lens)

    def with_scored(self, scored: Sequence[Scored]) -> "Batch":
        """This batch, with the rows of `scored` to be scored."""
        rows = [row for one in scored for row in one.rows]
        targets = [target for one in scored for target in one.targets]
        return Batch(np.concatenate(([-1 - len(rows)], rows, targets, self.ints)))

    @cached_property
    def query_starts(self) -> Ints:
        """Index of each chunk's first token among all tokens, then T: (S + 1,)."""
        return _starts(self.query_lens)

    @cached_property
    def table_starts(self) -> Ints:
        """Index of each table's first block in `block_tables`, then their number: (S + 1,)."""
        return _starts(self.table_lens)

    @cached_property
    def positions(self) -> Ints:
        """Each token's position in its sequence: (T,)."""
        return _ranges_before(self.context_lens, self.query_lens)

    @property
    def logit_rows(self) -> Ints:
        """Indices of the tokens after which one is sampled, in the order of the chunks."""
        if self.has_single_rows:
            return np.flatnonzero(self.num_logits)
        return _ranges_before(self.query_starts[1:], self.num_logits)

    def slots(self, block_size: int) -> Ints:
        """Where each token's K and V go, `block * block_size + offset`: (T,)."""
        positions = self.positions
        tables = np.repeat(self.table_starts[:-1], self.query_lens)
        blocks: Ints = self.block_tables[tables + positions // block_size]
        slots: Ints = blocks * block_size + positions % block_size
        return slots

    def padded_tables(self) -> Ints:
        """The block tables as one matrix, padded with block 0: (S, longest)."""
        width = int(self.table_lens.max())
        padded = np.zeros((len(self.table_lens), width), np.int64)
        padded[np.arange(width) < self.table_lens[:, None]] = self.block_tables
        return padded


def _starts(lens: Ints) -> Ints:
    starts = np.zeros(len(lens) + 1, np.int64)
    np.cumsum(lens, out=starts[1:])
    return starts


def _ranges_before(ends: Ints, counts: Ints) -> Ints:
    """The ints `end - count .. end - 1` of each pair, one range after the other."""
    stops = np.cumsum(counts)
    return np.arange(stops[-1]) + np.repeat(ends - stops, counts)
