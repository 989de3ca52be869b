"""How long the reader of a stream waits for more of it."""

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Timeline:
    """Monotonic seconds: when a stream was asked for, when each text came, and when it ended."""

    times: list[float] = field(default_factory=list)

    @property
    def longest_s(self) -> float:
        return max(later - earlier for earlier, later in pairwise(self.times))

    def pause_s(self, undisturbed: "Timeline", at: float) -> float:
        """The longest wait that ends after `at`, when something happened; 0 if the stream ended
        before that.

        Nobody is told anything before the first text, so that wait counts as far as it is longer
        than undisturbed.
        """
        waits = [later - earlier for earlier, later in pairwise(self.times)]
        waits[0] -= undisturbed.times[1] - undisturbed.times[0]
        ends = self.times[1:]
        return max((wait for wait, end in zip(waits, ends, strict=True) if end > at), default=0.0)
