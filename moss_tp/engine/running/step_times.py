"""How long a step may take before it counts as stuck: learnt from the steps before it.

A step takes at most as long as another one, times how many times more it computes of anything:
that holds for every time that is a constant plus a multiple of each count in `StepSize`. It knows
no clock and no thread; `StepWatch` measures.
"""

from dataclasses import dataclass
from math import inf
from typing import Self

from moss_tp.engine.running.batch import Batch

# A step may take this many times what is known: a busy machine, a kernel compiled on demand.
FACTOR = 20
# The least limit. A rank that waits for its turn on a busy machine, or for a page of its weights
# that was swapped out, is not stuck.
MIN_LIMIT_S = 5.0
# Of a known time, after each further step of its class: what took long once is forgotten.
DECAY = 0.99


@dataclass(frozen=True)
class StepSize:
    """What a step computes: tokens, pairs of a token and one that it attends to, rows of logits."""

    tokens: int
    attended: int
    logits: int

    @classmethod
    def of(cls, batch: Batch) -> Self:
        attended = batch.query_lens @ batch.context_lens
        return cls(len(batch.token_ids), int(attended), int(batch.num_logits.sum()))

    @property
    def floor(self) -> "StepSize":
        """The class that it belongs to: each count rounded down to a power of two."""
        return StepSize(_power(self.tokens), _power(self.attended), _power(self.logits))

    def ratio(self, other: "StepSize") -> float:
        """How many times more it computes than `other`, of what grew most; at least 1."""
        pairs = (
            (self.tokens, other.tokens),
            (self.attended, other.attended),
            (self.logits, other.logits),
        )
        return max(1.0, *(_ratio(mine, theirs) for mine, theirs in pairs))


NO_STEP = StepSize(0, 0, 0)  # a heartbeat computes nothing


class StepTimes:
    """The known times, in seconds. `max_limit_s` holds before enough is known, and always."""

    def __init__(self, max_limit_s: float) -> None:
        self._max_limit_s = max_limit_s
        self._known: dict[StepSize, float] = {}  # a slowly decaying maximum of each class

    def record(self, size: StepSize, seconds: float) -> None:
        """A step of `size` ended after `seconds`."""
        kind = size.floor
        self._known[kind] = max(seconds, DECAY * self._known.get(kind, 0.0))

    def limit_s(self, size: StepSize) -> float:
        """How long a step of `size` may take. May be called from any thread."""
        known = list(self._known.items())  # another thread may be recording
        expected = min((seconds * size.ratio(kind) for kind, seconds in known), default=inf)
        return min(max(MIN_LIMIT_S, FACTOR * expected), self._max_limit_s)


def _ratio(count: int, other: int) -> float:
    if other:
        return count / other
    return inf if count else 1.0


def _power(count: int) -> int:
    return 1 << count.bit_length() - 1 if count else 0
