"""The rows of a step whose logits say how probable the prompt's own next tokens were.

    prompt      a  b  c  d  e | f  g  h         two chunks of a sequence that wants logprobs
    scored as   b  c  d  e  f   g  h  .         after h a token is sampled, or nothing

They are in the batch beside the rows that are sampled, and what a step returns for them comes after
its sampled tokens. A step in which no prompt is scored has none of this.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Ids
from typing import NamedTuple

from moss_tp.engine.scheduling.chunk import Chunk
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling.row import SampledToken


class Scored(NamedTuple):
    """The `rows` of a batch, and the ids of the prompt of `seq` that come after them."""

    seq: Sequence
    rows: range
    targets: list[int]


class Scoring:
    """The sequences with logprobs of their prompts to come: few, and mostly none."""

    def __init__(self) -> None:
        self._seqs: set[Sequence] = set()

    def __len__(self) -> int:
        return len(self._seqs)

    def add(self, seq: Sequence) -> None:
        """A sequence that may want them."""
        if seq.num_unscored:
            self._seqs.add(seq)

    def discard(self, seq: Sequence) -> None:
        """One that has ended."""
        self._seqs.discard(seq)

    def find(self, chunks: Iterable[Chunk]) -> list[Scored]:
        """The rows of a step that are to be scored, before its sequences have advanced."""
        return find_scored(chunks) if self._seqs else []

    def note(self, scored: Ids[Scored], tokens: Ids[SampledToken]) -> None:
        """What a step has returned, of which the results of `scored` are the last."""
        start = len(tokens) - sum(len(one.rows) for one in scored)
        for seq, rows, _ in scored:
            seq.note_scores(tokens[start : start + len(rows)])
            start += len(rows)
            if not seq.num_unscored:
                self._seqs.discard(seq)


def find_scored(chunks: Iterable[Chunk]) -> list[Scored]:
    """Of a step, before its sequences have advanced."""
    found: list[Scored] = []
    row = 0
    for seq, num_known, _, draft in chunks:
        start = seq.num_computed
        positions = seq.unscored(start, start + num_known)
        if positions:
            first = row + positions.start - start
            targets = seq.token_ids[positions.start + 1 : positions.stop + 1]
            found.append(Scored(seq, range(first, first + len(positions)), targets))
        row += num_known + len(draft)
    return found
