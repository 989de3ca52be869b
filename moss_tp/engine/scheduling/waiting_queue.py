"""The order in which requests are served. It does not depend on blocks or token budgets.

    rank = (not is_continuation, time of arrival + priority * PRIORITY_STEP_S, number of arrival)

The lowest rank comes first: continuations before everything else, then smaller priorities, then
earlier arrivals. A rank never changes: a request that arrives more than `PRIORITY_STEP_S` per
priority level later is served later, however urgent it is. So only finitely many new requests can
get ahead of a waiting one. The same holds for continuations, since each goes on with what was
admitted before: it is the next pass of a turn whose earlier pass was served, or a reply that its
engine lost in the middle. A turn of two passes counts twice, and no request starves.
"""

from bisect import insort
from collections.abc import Callable, Iterator
from itertools import count
from math import inf

from moss_tp.engine.scheduling.sequence import Rank, Sequence
from moss_tp.engine.scheduling.waits import Waits

PRIORITY_STEP_S = 10.0  # waiting this long equals one level of priority
MAX_PRIORITY = 100


class WaitingQueue:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._arrivals = count()
        self._seqs: list[Sequence] = []
        self.waits = Waits()

    def __len__(self) -> int:
        return len(self._seqs)

    def __iter__(self) -> Iterator[Sequence]:
        """In the order in which they are served."""
        return iter(self._seqs)

    @property
    def head(self) -> Sequence:
        return self._seqs[0]

    def add(
        self,
        seq: Sequence,
        priority: int = 0,
        deadline_s: float | None = None,
        is_continuation: bool = False,
    ) -> None:
        """A new request: sets its rank and the time until which it may wait."""
        now = self._clock()
        arrival = now + priority * PRIORITY_STEP_S
        seq.rank = (not is_continuation, arrival, next(self._arrivals))
        seq.queued_at = now
        seq.expires_at = inf if deadline_s is None else now + deadline_s
        insort(self._seqs, seq, key=rank_of)

    def ahead_of(self, priority: int) -> list[Sequence]:
        """The sequences that are served before a request that would be added now."""
        last = (True, self._clock() + priority * PRIORITY_STEP_S, inf)
        return [seq for seq in self._seqs if seq.rank <= last]

    def put_back(self, seq: Sequence) -> None:
        """A preempted sequence: it keeps its rank."""
        insort(self._seqs, seq, key=rank_of)

    def pop(self) -> Sequence:
        """The head, which is admitted. How long it has waited counts once."""
        seq = self._seqs.pop(0)
        if not seq.num_preemptions:
            self.waits.note(self._clock() - seq.queued_at)
        return seq

    def remove(self, seq: Sequence) -> None:
        self._seqs.remove(seq)

    def expired(self) -> list[Sequence]:
        """The sequences that waited past their deadline. A preempted one that has sampled tokens
        already has no deadline any more."""
        now = self._clock()
        return [
            seq
            for seq in self._seqs
            if seq.expires_at <= now and seq.num_output_tokens == seq.num_told_tokens
        ]


def rank_of(seq: Sequence) -> Rank:
    return seq.rank
