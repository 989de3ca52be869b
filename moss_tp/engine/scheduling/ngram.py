"""Guesses a sequence's next tokens from its own text: prompt lookup, with no model.

Where the last few tokens stood before, what followed then may follow again, as it does when a
reply copies search results. Each guess is compared with what really came, verified or not, so a
drafter knows how often it is right and costs nothing while it is not. It knows no batch.
"""

from collections.abc import Sequence as Ids

SIZES = (3, 2)  # of the n-grams that are looked up, the longest first
HIT_RATE_AT_START = 0.5
HIT_RATE_MEMORY = 0.75
HIT_RATE_LIMIT = 0.85  # Nobody counts as surer than this, or a large batch could not say no.


class NgramDrafter:
    """State of one sequence, whose `token_ids` only ever grow at the end."""

    def __init__(self) -> None:
        self.hit_rate = HIT_RATE_AT_START
        self._following: dict[tuple[int, ...], int] = {}  # n-gram -> where its last one ended
        self._num_indexed = 0
        self._guess: list[int] = []
        self._guessed_at = 0

    def draft(self, token_ids: Ids[int], max_tokens: int, min_chance: float) -> list[int]:
        """Up to `max_tokens` likely next tokens, as long as each is right with `min_chance`.

        The n-th is right only if those before it are: its chance is the hit rate to the n-th.
        """
        self._learn(token_ids)
        self._index(token_ids)
        self._guess, self._guessed_at = self._look_up(token_ids, max_tokens), len(token_ids)
        length, chance = 0, min(self.hit_rate, HIT_RATE_LIMIT)
        while length < len(self._guess) and chance >= min_chance:
            length, chance = length + 1, chance * self.hit_rate
        return self._guess[:length]

    def _learn(self, token_ids: Ids[int]) -> None:
        """Compares the last guess with what came, up to its first mistake."""
        for guessed, token_id in zip(self._guess, token_ids[self._guessed_at :], strict=False):
            is_hit = guessed == token_id
            self.hit_rate = HIT_RATE_MEMORY * self.hit_rate + (1 - HIT_RATE_MEMORY) * is_hit
            if not is_hit:
                return

    def _index(self, token_ids: Ids[int]) -> None:
        """All n-grams but those at the very end, which would only find themselves."""
        for end in range(self._num_indexed, len(token_ids)):
            for size in SIZES:
                if size <= end:
                    self._following[tuple(token_ids[end - size : end])] = end
        self._num_indexed = len(token_ids)

    def _look_up(self, token_ids: Ids[int], max_tokens: int) -> list[int]:
        for size in SIZES:
            start = self._following.get(tuple(token_ids[-size:]))
            if start is not None:
                # What follows may run into the end, and then repeats itself.
                period = len(token_ids) - start
                return [token_ids[start + i % period] for i in range(max_tokens)]
        return []


def min_chance(num_rows: int, row_cost: float) -> float:
    """From which chance of being right one more row in a step of `num_rows` is worth its time.

    A step takes 1 + row_cost * (num_rows - 1) of the time that one row alone takes, and gives
    num_rows tokens; a drafted row takes row_cost, and gives a token with that chance.
    """
    return row_cost * num_rows / (1 + row_cost * (num_rows - 1))
