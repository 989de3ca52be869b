"""How long a step may take before it counts as stuck: learnt from the steps before it.

A step takes at most as long as another one, times how many times more it computes of anything:
that holds for every time that is a constant plus a multiple of each count in `StepSize`. Only the
first step of a kind may take longer, since it may compile a kernel that no other needs. It knows no
clock and no thread; `StepWatch` measures.
"""

from dataclasses import dataclass
from math import inf
from typing import Self

from moss_tp.engine.scheduling.batch import Batch

# A step may take this many times what is known: a busy machine, a kernel compiled on demand.
FACTOR = 20
# The least limit, if the device says none. A rank that waits for its turn on a busy machine, or for
# a page of its weights that was swapped out, is not stuck.
MIN_LIMIT_S = 5.0
# A step that takes this many times what is known is late, and its group not healthy meanwhile; so
# is a small one after this share of the least limit.
LATE_FACTOR = 4
LATE_SHARE = 0.3
# Of a known time, after each further step of its class: what took long once is forgotten.
DECAY = 0.99


@dataclass(frozen=True)
class StepSize:
    """What a step computes: tokens, pairs of a token and one that it attends to, rows of logits.

    A decode step has one token of each of its sequences.
    """

    tokens: int
    attended: int
    logits: int
    is_decode: bool

    @classmethod
    def of(cls, batch: Batch) -> Self:
        return cls(
            tokens=len(batch.token_ids),
            attended=int(batch.query_lens @ batch.context_lens),
            logits=int(batch.num_logits.sum()) + len(batch.scored_rows),
            is_decode=batch.has_single_rows,
        )

    @property
    def kind(self) -> tuple[int, bool]:
        """Steps of a kind run the same kernels: about as many rows, decoding or not."""
        return (self.tokens.bit_length() - 1) // 2, self.is_decode

    @property
    def floor(self) -> "StepSize":
        """The class that it belongs to: each count rounded down to a power of two."""
        counts = (_power(self.tokens), _power(self.attended), _power(self.logits))
        return StepSize(*counts, self.is_decode)

    def ratio(self, other: "StepSize") -> float:
        """How many times more it computes than `other`, of what grew most; at least 1."""
        pairs = (
            (self.tokens, other.tokens),
            (self.attended, other.attended),
            (self.logits, other.logits),
        )
        return max(1.0, *(_ratio(mine, theirs) for mine, theirs in pairs))


NO_STEP = StepSize(0, 0, 0, is_decode=False)  # a heartbeat computes nothing


class StepTimes:
    """The known times, in seconds. `max_limit_s` holds before enough is known, and always.

    `min_limit_s` is the device's, see `DeviceTraits`: FACTOR times a few milliseconds would not
    do where kernels are compiled on first use.
    """

    def __init__(self, max_limit_s: float, min_limit_s: float = MIN_LIMIT_S) -> None:
        self._max_limit_s = max_limit_s
        self._min_limit_s = min_limit_s
        self._known: dict[StepSize, float] = {}  # a slowly decaying maximum of each class
        self._kinds: set[tuple[int, bool]] = set()

    def record(self, size: StepSize, seconds: float) -> None:
        """A step of `size` ended after `seconds`."""
        floor = size.floor
        self._known[floor] = max(seconds, DECAY * self._known.get(floor, 0.0))
        self._kinds |= {size.kind, NO_STEP.kind}  # a group that runs steps answers heartbeats

    def limit_s(self, size: StepSize) -> float:
        """How long a step of `size` may take. May be called from any thread."""
        return self._limit(size, self._min_limit_s, FACTOR)

    def late_s(self, size: StepSize) -> float:
        """After how long a step of `size` is late, which is below its limit once enough is known.
        May be called from any thread."""
        return self._limit(size, LATE_SHARE * self._min_limit_s, LATE_FACTOR)

    def _limit(self, size: StepSize, least_s: float, factor: float) -> float:
        if size.kind not in self._kinds:
            return self._max_limit_s
        known = list(self._known.items())  # another thread may be recording
        expected = min(seconds * size.ratio(floor) for floor, seconds in known)
        return min(max(least_s, factor * expected), self._max_limit_s)


def _ratio(count: int, other: int) -> float:
    if other:
        return count / other
    return inf if count else 1.0


def _power(count: int) -> int:
    return 1 << count.bit_length() - 1 if count else 0
