"""A sequence's part of one step."""

from collections.abc import Iterable
from typing import NamedTuple

from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling.row import SamplingRow


class Chunk(NamedTuple):
    """The next `num_known` uncomputed tokens of a sequence, then `draft`, which may follow them.

        known known draft draft      each token's row gives the logits of the next token; the
                |     |     |        last known one's are always needed, a drafted one's only
             sample sample sample    where all drafts up to it equal what is sampled

    Nothing is sampled (and nothing drafted) while the prompt continues after the chunk, nor where
    the sequence ends with its prompt: its last token is not computed then.
    """

    seq: Sequence
    num_known: int
    is_sampled: bool
    draft: tuple[int, ...] = ()

    @classmethod
    def next_of(cls, seq: Sequence, max_tokens: int) -> "Chunk":
        """The next chunk of a sequence that has uncomputed tokens."""
        num_uncomputed = seq.num_uncomputed
        if seq.end_reason is not None:
            return cls(seq, min(num_uncomputed - 1, max_tokens), False)
        if num_uncomputed > max_tokens:
            return cls(seq, max_tokens, False)
        return cls(seq, num_uncomputed, True)

    @property
    def num_logits(self) -> int:
        return 1 + len(self.draft) if self.is_sampled else 0


def sampling_rows(chunks: Iterable[Chunk]) -> list[SamplingRow]:
    """How to sample after each of the last `num_logits` tokens of each chunk."""
    rows: list[SamplingRow] = []
    for seq, _, is_sampled, draft in chunks:
        if is_sampled:
            rows.append(seq.sampling_row())
            for i in range(len(draft)):
                rows.append(seq.sampling_row(draft[: i + 1]))
    return rows
