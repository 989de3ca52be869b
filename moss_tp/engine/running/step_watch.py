"""Sees that a step is stuck, from a thread other than the one that runs it.

It counts time by its own ticks, each as MAX_TICK_S at most. So a machine that was asleep, or a
process that was stopped or starved, does not make a step look stuck: then the ticks came late too.
It does nothing about a stuck step.

Steps of a device run one after the other. So the first that has not ended is the one that runs,
and it began with its launch or with the end of the step before it, whichever was later:

    launched 1 2    3        time ->
    runs     |--1--|--2--|--3--|
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from moss_tp.engine.running.step_times import StepSize, StepTimes

TICK_S = 0.25
MAX_TICK_S = 2 * TICK_S


def _not_launched() -> bool:
    return False


@dataclass(eq=False)
class WatchedStep:
    """A step from its launch on. `is_done` is asked before the step counts as stuck: the thread
    that waits for it may only be late."""

    size: StepSize
    start: float
    counted_s: float = 0.0
    is_done: Callable[[], bool] = _not_launched
    was_done: bool = False

    def check_done(self) -> bool:
        """Whether it has ended, although nobody has noticed."""
        with suppress(RuntimeError):  # the device has failed: the thread that waits will say so
            self.was_done = self.is_done()
        return self.was_done


class StepWatch:
    """`clock` returns seconds. One thread runs steps, another one ticks every TICK_S seconds."""

    def __init__(self, times: StepTimes, clock: Callable[[], float]) -> None:
        self._times = times
        self._clock = clock
        self._steps: tuple[WatchedStep, ...] = ()  # in order of launch; replaced as a whole
        self._ticked_at = clock()
        self._late: WatchedStep | None = None

    @property
    def late(self) -> str | None:
        """A message while the running step is late; it may still end."""
        late = self._late
        if late is None or late not in self._steps:
            return None
        return self._message(late, self._times.late_s(late.size))

    def begin(self, size: StepSize) -> WatchedStep:
        """A step that is about to be launched, behind those that have not ended."""
        step = WatchedStep(size, self._clock())
        self._steps = (*self._steps, step)
        return step

    def end(self, step: WatchedStep) -> None:
        """A step that has ended well; the next one runs from now on."""
        now = self._clock()
        self._times.record(step.size, min(now - step.start, step.counted_s + MAX_TICK_S))
        self.drop(step)
        for later in self._steps:
            later.start = now

    def drop(self, step: WatchedStep) -> None:
        """A step that has failed: it teaches nothing."""
        self._steps = tuple(other for other in self._steps if other is not step)

    def clear(self) -> None:
        """Forgets all steps: nobody waits for them."""
        self._steps = ()

    @contextmanager
    def step(self, size: StepSize) -> Iterator[None]:
        """Around a step that runs in the calling thread. One that raises teaches nothing."""
        running = self.begin(size)
        try:
            yield
        except BaseException:
            self.drop(running)
            raise
        self.end(running)

    def tick(self) -> str | None:
        """A message if the running step is stuck."""
        now = self._clock()
        running = next((step for step in self._steps if not step.was_done), None)
        last = self._ticked_at
        self._ticked_at = now
        if running is None:
            return None
        running.counted_s += max(0.0, min(now - max(last, running.start), MAX_TICK_S))
        if running.counted_s <= self._times.late_s(running.size) or running.check_done():
            return None
        self._late = running
        limit = self._times.limit_s(running.size)
        return self._message(running, limit) if running.counted_s > limit else None

    def _message(self, step: WatchedStep, limit_s: float) -> str:
        return (
            f"a step of {step.size.tokens} tokens has not ended for {step.counted_s:.1f} s, "
            f"and takes {limit_s:.1f} s at most"
        )
