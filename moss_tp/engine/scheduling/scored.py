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


def note_scores(scored: Ids[Scored], tokens: Ids[SampledToken]) -> None:
    """Gives a step's results, of which those of `scored` are the last, to their sequences."""
    start = len(tokens) - sum(len(one.rows) for one in scored)
    for seq, rows, _ in scored:
        seq.note_scores(tokens[start : start + len(rows)])
        start += len(rows)
