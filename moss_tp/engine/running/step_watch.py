"""Sees that a step is stuck, from a thread other than the one that runs it.

It counts time by its own ticks, each as MAX_TICK_S at most. So a machine that was asleep, or a
process that was stopped or starved, does not make a step look stuck: then the ticks came late too.
It does nothing about a stuck step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from moss_tp.engine.running.step_times import StepSize, StepTimes

TICK_S = 0.25
MAX_TICK_S = 2 * TICK_S


@dataclass
class _Running:
    size: StepSize
    start: float
    counted_s: float = 0.0


class StepWatch:
    """`clock` returns seconds. One thread runs steps, another one ticks every TICK_S seconds."""

    def __init__(self, times: StepTimes, clock: Callable[[], float]) -> None:
        self._times = times
        self._clock = clock
        self._running: _Running | None = None
        self._ticked_at = clock()

    @contextmanager
    def step(self, size: StepSize) -> Iterator[None]:
        """Around a step. One that raises teaches nothing."""
        running = _Running(size, self._clock())
        self._running = running
        try:
            yield
        finally:
            self._running = None
        seconds = self._clock() - running.start
        self._times.record(size, min(seconds, running.counted_s + MAX_TICK_S))

    def tick(self) -> str | None:
        """A message if the running step is stuck."""
        now = self._clock()
        running, last = self._running, self._ticked_at
        self._ticked_at = now
        if running is None:
            return None
        running.counted_s += min(now - max(last, running.start), MAX_TICK_S)
        limit = self._times.limit_s(running.size)
        if running.counted_s <= limit:
            return None
        return (
            f"a step of {running.size.tokens} tokens has not ended for {running.counted_s:.1f} s, "
            f"and takes {limit:.1f} s at most"
        )
