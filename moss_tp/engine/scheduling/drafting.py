"""How many tokens to draft for the sequences of a step, and what that promises."""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Ids
from typing import NamedTuple

from moss_tp.engine.scheduling.block_manager import BlockManager
from moss_tp.engine.scheduling.chunk import Chunk
from moss_tp.engine.scheduling.ngram import HIT_RATE_LIMIT, min_chance
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.engine_config import EngineConfig


class Outlook(NamedTuple):
    """Of a step with that many decodes: drafted tokens, and how many of them should be right."""

    num_decodes: int
    num_drafted: int
    num_expected: float


class Drafting:
    """Drafts by each sequence's own drafter. Blocks come from `blocks`, as far as they are free."""

    def __init__(self, config: EngineConfig, blocks: BlockManager) -> None:
        self._max_tokens = config.num_speculative_tokens  # of a sequence
        self._max_model_len = config.context_length
        self._row_cost = config.traits.row_cost
        self._blocks = blocks

    def extend(self, decodes: Ids[Chunk], num_rows: int, max_rows: int) -> Iterator[Chunk]:
        """The decodes, each with as many drafted tokens as are worth verifying, in a step of
        `num_rows` rows without them and at most `max_rows`."""
        for position, chunk in enumerate(decodes):
            limit, chance = self._bounds(num_rows, max_rows)
            if limit <= 0:
                yield from decodes[position:]
                return
            draft = self._draft(chunk.seq, limit, chance)
            if draft and self._blocks.grow(chunk.seq, len(draft)):
                chunk = chunk._replace(draft=tuple(draft))
            num_rows += len(chunk.draft)
            yield chunk

    def look_ahead(self, seqs: Ids[Sequence], num_rows: int, max_rows: int) -> Outlook:
        """What `extend` would draft for the next step of `seqs`. Keeps their hit rates up to date,
        although nothing is verified."""
        num_drafted, num_expected = 0, 0.0
        for seq in seqs:
            limit, chance = self._bounds(num_rows + num_drafted, max_rows)
            if limit <= 0:
                break
            length = len(self._draft(seq, limit, chance))
            num_drafted += length
            num_expected += seq.drafter.expected_hits(length)
        return Outlook(len(seqs), num_drafted, num_expected)

    def _bounds(self, num_rows: int, max_rows: int) -> tuple[int, float]:
        """Tokens of the next draft at most, and the least chance of each to be right."""
        chance = min_chance(num_rows, self._row_cost)
        if chance >= HIT_RATE_LIMIT:
            return 0, chance
        return min(self._max_tokens, max_rows - num_rows), chance

    def _draft(self, seq: Sequence, limit: int, chance: float) -> list[int]:
        """The sequence's next tokens, within the limits of its length."""
        num_left = min(
            seq.params.max_tokens - seq.num_output_tokens, self._max_model_len - seq.num_tokens
        )
        return seq.drafter.draft(seq.token_ids, min(limit, num_left - 1), chance)


def outlook_of(chunks: Iterable[Chunk]) -> Outlook:
    """What a scheduled step promises."""
    decodes = [chunk for chunk in chunks if chunk.is_sampled and chunk.num_known == 1]
    return Outlook(
        num_decodes=len(decodes),
        num_drafted=sum(len(chunk.draft) for chunk in decodes),
        num_expected=sum(
            chunk.seq.drafter.expected_hits(len(chunk.draft)) for chunk in decodes if chunk.draft
        ),
    )
