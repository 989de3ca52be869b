"""How many requests each replica has, as one router knows it: its own, to the request, and those of
others by what the replica last said. Serve's own count keeps others' for ten seconds after they
have ended."""

import time
from collections import Counter
from collections.abc import Callable, Collection

FRESH_S = 0.5  # it may be over at any time


class Loads:
    """By a replica's full unique id."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._own: Counter[str] = Counter()
        self._others: dict[str, tuple[int, float]] = {}

    def sent(self, replica: str) -> None:
        self._own[replica] += 1

    def ended(self, replica: str) -> None:
        """One that was sent."""
        self._own[replica] = max(0, self._own[replica] - 1)

    def told(self, replica: str, num_requests: int) -> None:
        """The replica says how many it has, of everybody."""
        self._others[replica] = (max(0, num_requests - self._own[replica]), self._clock())

    def of(self, replica: str) -> int:
        others, at = self._others.get(replica, (0, 0.0))
        return self._own[replica] + (others if self._clock() - at < FRESH_S else 0)

    def keep(self, replicas: Collection[str]) -> None:
        """Forgets others than `replicas`."""
        for gone in (self._own.keys() | self._others.keys()) - set(replicas):
            del self._own[gone]
            self._others.pop(gone, None)
