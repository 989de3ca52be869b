"""A sequence's share of one step, and how a step's shares become a Batch."""

from array import array
from collections.abc import Sequence as Ids
from typing import NamedTuple

import numpy as np

from moss_tp.engine.running.batch import Batch
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling.row import SamplingRow


class Chunk(NamedTuple):
    """The next `num_known` uncomputed tokens of a sequence, then `draft`: what may follow them.

        known known draft draft      each row gives the logits of the token after it: the last
                |     |     |        known one's are always wanted, a drafted one's are of use
             sample sample sample    where the drafts up to it turn out to be what is sampled

    Nothing is sampled (and nothing drafted) while the prompt goes on after the chunk.
    """

    seq: Sequence
    num_known: int
    is_sampled: bool
    draft: tuple[int, ...] = ()

    @classmethod
    def next_of(cls, seq: Sequence, max_tokens: int) -> "Chunk":
        num_uncomputed = seq.num_uncomputed
        if num_uncomputed > max_tokens:
            return cls(seq, max_tokens, False)
        return cls(seq, num_uncomputed, True)

    @property
    def num_logits(self) -> int:
        return 1 + len(self.draft) if self.is_sampled else 0

    def sampling_rows(self) -> list[SamplingRow]:
        """How to sample after each of the last `num_logits` rows."""
        if self.is_sampled and not self.draft:
            return [self.seq.sampling_row()]
        return [self.seq.sampling_row(self.draft[:i]) for i in range(self.num_logits)]


def to_batch(chunks: Ids[Chunk], block_size: int) -> Batch:
    """What the ranks must know of `chunks`, before `update` books them."""
    token_ids: list[int] = []
    query_lens, context_lens, table_lens = [], [], []
    tables: list[array[int]] = []
    for seq, num_known, _, draft in chunks:
        start = seq.num_computed
        context = start + num_known + len(draft)
        token_ids += seq.token_ids[start : start + num_known]
        token_ids += draft
        query_lens.append(context - start)
        context_lens.append(context)
        table_lens.append(-(-context // block_size))
        tables.append(seq.block_table[: table_lens[-1]])
    return Batch(
        query_lens=np.array(query_lens),
        context_lens=np.array(context_lens),
        num_logits=np.array([chunk.num_logits for chunk in chunks]),
        table_lens=np.array(table_lens),
        token_ids=np.array(token_ids),
        block_tables=np.frombuffer(b"".join(tables), np.int64),
    )
