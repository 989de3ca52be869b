"""Drafts a sequence's next tokens from its own tokens: n-gram (prompt lookup) speculation.

If the last few tokens occurred before, what followed them then may follow again, for instance
when a reply copies search results. Every draft is compared with the tokens that came, whether a
step verified it or not. So the drafter knows its hit rate, and drafts nothing while it is low.
It does not depend on how requests are batched.
"""

from collections.abc import Sequence as Ids

SIZES = (3, 2)  # of the n-grams that are looked up, longest first
HIT_RATE_AT_START = 0.5
HIT_RATE_MEMORY = 0.75
HIT_RATE_LIMIT = 0.85  # a higher hit rate counts as this, so that large batches draft nothing


class NgramDrafter:
    """The state of one sequence. Its `token_ids` only ever grow at the end."""

    def __init__(self) -> None:
        self.hit_rate = HIT_RATE_AT_START
        self._following: dict[tuple[int, ...], int] = {}  # index after an n-gram
        self._num_indexed = 0
        self._prediction: list[int] = []
        self._drafted_at = 0

    def draft(self, token_ids: Ids[int], max_tokens: int, min_chance: float) -> list[int]:
        """Up to `max_tokens` likely next tokens, while each has at least `min_chance` to be right.

        The n-th token is right only if all before it are: its chance is the hit rate to the n.
        """
        self._update_hit_rate(token_ids)
        self._index(token_ids)
        self._prediction, self._drafted_at = self._look_up(token_ids, max_tokens), len(token_ids)
        length, chance = 0, min(self.hit_rate, HIT_RATE_LIMIT)
        while length < len(self._prediction) and chance >= min_chance:
            length, chance = length + 1, chance * self.hit_rate
        return self._prediction[:length]

    def expected_hits(self, length: int) -> float:
        """How many of a draft's first `length` tokens should be right."""
        rate = min(self.hit_rate, HIT_RATE_LIMIT)
        return rate * (1 - rate**length) / (1 - rate)

    def _update_hit_rate(self, token_ids: Ids[int]) -> None:
        """Updates the hit rate from the last draft, up to its first wrong token."""
        new_ids = token_ids[self._drafted_at :]
        for predicted, token_id in zip(self._prediction, new_ids, strict=False):
            is_hit = predicted == token_id
            self.hit_rate = HIT_RATE_MEMORY * self.hit_rate + (1 - HIT_RATE_MEMORY) * is_hit
            if not is_hit:
                return

    def _index(self, token_ids: Ids[int]) -> None:
        """Indexes all n-grams but those at the very end, which would find themselves."""
        for end in range(self._num_indexed, len(token_ids)):
            for size in SIZES:
                if size <= end:
                    self._following[tuple(token_ids[end - size : end])] = end
        self._num_indexed = len(token_ids)

    def _look_up(self, token_ids: Ids[int], max_tokens: int) -> list[int]:
        for size in SIZES:
            start = self._following.get(tuple(token_ids[-size:]))
            if start is not None:
                # If the continuation reaches the end of the sequence, it repeats itself.
                period = len(token_ids) - start
                return [token_ids[start + i % period] for i in range(max_tokens)]
        return []


def min_chance(num_rows: int, row_cost: float) -> float:
    """The chance of being right from which a drafted row is worth its time in a step.

    Relative to a step of one row, a step takes 1 + row_cost * (num_rows - 1) and yields num_rows
    tokens; a drafted row takes row_cost and yields one token with the returned chance.
    """
    return row_cost * num_rows / (1 + row_cost * (num_rows - 1))
