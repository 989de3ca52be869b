"""How long requests have waited for their first step, as a histogram."""

from bisect import bisect_left
from typing import NamedTuple

# As vLLM's, in seconds.
BOUNDS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class WaitCounts(NamedTuple):
    """`counts` has one for each of `bounds`, of values up to it, and one for those above."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float


NO_WAITS = WaitCounts(BOUNDS_S, (0,) * (len(BOUNDS_S) + 1), 0.0)


class Waits:
    """For one thread; `counts` may be called from another."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def note(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def counts(self) -> WaitCounts:
        return WaitCounts(BOUNDS_S, tuple(self._counts), self._sum_s)
