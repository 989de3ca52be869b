"""How large a step may be: smaller after one that did not fit into the device's memory.

A step of drafts and prompts is halved first, then one of decodes, which means fewer sequences. What
was taken away comes back bit by bit while steps fit.
"""

GOOD_STEPS = 16  # after so many that fit, a step may be twice as large again


class AdaptiveLimits:
    """`tokens` and `seqs` of a step at most. While they are reduced nothing is drafted."""

    def __init__(self, max_tokens: int, max_seqs: int) -> None:
        self.tokens = max_tokens
        self.seqs = max_seqs
        self.is_reduced = False
        self._max_tokens = max_tokens
        self._max_seqs = max_seqs
        self._num_good = 0

    def shrink(self, num_tokens: int, num_seqs: int) -> bool:
        """After a step of that size, drafts included, did not fit. False if none is smaller."""
        if num_tokens == num_seqs == 1:
            return False
        self.is_reduced, self._num_good = True, 0
        if num_tokens > num_seqs:
            self.tokens = max(1, num_tokens // 2)
        else:
            self.seqs = num_seqs // 2
        return True

    def note_fit(self) -> None:
        """A step fitted."""
        if not self.is_reduced:
            return
        self._num_good += 1
        if self._num_good == GOOD_STEPS:
            self._num_good = 0
            self.tokens = min(2 * self.tokens, self._max_tokens)
            self.seqs = min(2 * self.seqs, self._max_seqs)
            self.is_reduced = self.tokens < self._max_tokens or self.seqs < self._max_seqs
