"""What one step computes, as flat ints: the only thing that goes out to the ranks.

A Batch is a row of chunks, one a sequence: a decode is a chunk of one token, a prefill of many.
It knows no text, no sampling settings and no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class Batch:
    """S chunks of T tokens in all.

    `context_lens` counts a sequence's tokens up to the end of its chunk. `block_tables` are
    just long enough to hold them. `samples` marks the chunks that end their sequence: the next
    token is wanted after their last row, and `Executor.execute` returns one token for each.
    """

    token_ids: tuple[int, ...]  # (T,)
    query_lens: tuple[int, ...]  # (S,)
    context_lens: tuple[int, ...]  # (S,)
    block_tables: tuple[tuple[int, ...], ...]  # (S, ceil(context / block_size))
    samples: tuple[bool, ...]  # (S,)

    @property
    def query_starts(self) -> list[int]:
        """Where each chunk begins among the flat rows, and T at the end: (S + 1,)."""
        return list(accumulate(self.query_lens, initial=0))

    @property
    def logit_rows(self) -> list[int]:
        """Flat rows whose logits are wanted, in the order of the chunks."""
        ends = self.query_starts[1:]
        return [end - 1 for end, is_last in zip(ends, self.samples, strict=True) if is_last]

    def to_ints(self) -> list[int]:
        """The batch as one flat list; `from_ints` reads it back."""
        return [
            len(self.query_lens),
            *self.query_lens,
            *self.context_lens,
            *map(len, self.block_tables),
            *map(int, self.samples),
            *self.token_ids,
            *(block for table in self.block_tables for block in table),
        ]

    @classmethod
    def from_ints(cls, values: Sequence[int]) -> "Batch":
        num_seqs = values[0]
        bounds = [1 + i * num_seqs for i in range(5)]
        query_lens, context_lens, table_lens, samples = (
            tuple(values[start:end]) for start, end in pairwise(bounds)
        )
        tables_start = bounds[-1] + sum(query_lens)
        table_bounds = accumulate(table_lens, initial=tables_start)
        return cls(
            token_ids=tuple(values[bounds[-1] : tables_start]),
            query_lens=query_lens,
            context_lens=context_lens,
            block_tables=tuple(tuple(values[a:b]) for a, b in pairwise(table_bounds)),
            samples=tuple(map(bool, samples)),
        )
