"""What one step computes, as flat ints: the only thing that goes out to the ranks.

A Batch is a row of chunks, one a sequence: a decode is a chunk of one token, a prefill of many.
Arrays, since a step's books are kept by the thousand ints. It knows no text, no sampling
settings and no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """S chunks of T tokens in all.

    `context_lens` counts a sequence's tokens up to the end of its chunk. `block_tables` holds
    the sequences' tables one after the other, `table_lens` how long each is: just enough for the
    context. After the last `num_logits` rows of a chunk the next token is wanted, and
    `Executor.execute` returns one token for each: none while a prompt is not at its end, else
    one, and one more for each drafted token that the chunk ends with.
    """

    query_lens: Ints  # (S,)
    context_lens: Ints  # (S,)
    num_logits: Ints  # (S,)
    table_lens: Ints  # (S,)
    token_ids: Ints  # (T,)
    block_tables: Ints  # (sum of table_lens,)

    @cached_property
    def query_starts(self) -> Ints:
        """Where each chunk begins among the flat rows, and T at the end: (S + 1,)."""
        return _starts(self.query_lens)

    @cached_property
    def positions(self) -> Ints:
        """Where each flat row stands in its sequence: (T,)."""
        return _last_before(self.context_lens, self.query_lens)

    @property
    def logit_rows(self) -> Ints:
        """Flat rows whose logits are wanted, in the order of the chunks."""
        return _last_before(self.query_starts[1:], self.num_logits)

    def slots(self, block_size: int) -> Ints:
        """Where each flat row's K and V go, `block * block_size + offset`: (T,)."""
        positions = self.positions
        tables = np.repeat(_starts(self.table_lens)[:-1], self.query_lens)
        blocks: Ints = self.block_tables[tables + positions // block_size]
        slots: Ints = blocks * block_size + positions % block_size
        return slots

    def padded_tables(self) -> Ints:
        """The block tables as one matrix, padded with block 0: (S, longest)."""
        width = int(self.table_lens.max())
        padded = np.zeros((len(self.table_lens), width), np.int64)
        padded[np.arange(width) < self.table_lens[:, None]] = self.block_tables
        return padded

    def to_ints(self) -> Ints:
        """The batch as one flat array; `from_ints` reads it back."""
        return np.concatenate(
            (
                [len(self.query_lens)],
                self.query_lens,
                self.context_lens,
                self.num_logits,
                self.table_lens,
                self.token_ids,
                self.block_tables,
            )
        )

    @classmethod
    def from_ints(cls, values: Sequence[int] | Ints) -> "Batch":
        ints = np.asarray(values, np.int64)
        num_seqs = int(ints[0])
        query_lens, context_lens, num_logits, table_lens = (
            ints[1 + i * num_seqs : 1 + (i + 1) * num_seqs] for i in range(4)
        )
        token_ids, block_tables = np.split(ints[1 + 4 * num_seqs :], [int(query_lens.sum())])
        return cls(query_lens, context_lens, num_logits, table_lens, token_ids, block_tables)


def _starts(lens: Ints) -> Ints:
    return np.concatenate(([0], np.cumsum(lens)))


def _last_before(ends: Ints, counts: Ints) -> Ints:
    """The ints `end - count .. end - 1` of each pair, one after the other."""
    stops = np.cumsum(counts)
    return np.arange(stops[-1]) + np.repeat(ends - stops, counts)
