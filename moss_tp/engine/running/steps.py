"""The kinds of Step that a Driver gives: run in `result`, or launched on a device before."""

import time
from collections.abc import Callable

from moss_tp.engine.running.runner import PendingStep
from moss_tp.engine.running.step_watch import WatchedStep
from moss_tp.errors import StepMemoryError
from moss_tp.sampling.row import SampledToken

SPIN_S = 50e-6  # waiting for longer than this, a thread sleeps between two looks
POLL_S = 20e-6  # Linux makes 70 µs of it


class LazyStep:
    """Runs in `result`, in the thread that calls it; once more, if that was interrupted."""

    def __init__(self, run: Callable[[], list[SampledToken]]) -> None:
        self._run = run

    def result(self) -> list[SampledToken]:
        return self._run()


class FailedStep:
    """A step that did not fit into the memory when it was launched."""

    def __init__(self, error: StepMemoryError) -> None:
        self._error = error

    def result(self) -> list[SampledToken]:
        raise self._error


class LaunchedStep:
    """A step that is in flight until `wait` has returned its tokens or raised."""

    def __init__(
        self,
        pending: PendingStep,
        watched: WatchedStep,
        wait: Callable[["LaunchedStep"], list[SampledToken]],
    ) -> None:
        self.pending = pending
        self.watched = watched
        self._wait = wait
        watched.is_done = pending.peek  # from another thread

    def result(self) -> list[SampledToken]:
        return self._wait(self)


def poll(is_done: Callable[[], bool], check: Callable[[], None]) -> None:
    """Waits until `is_done`. `check` is called meanwhile, and raises to give up: so a device that
    is stuck holds no thread."""
    spin_until = time.perf_counter() + SPIN_S
    while not is_done():
        check()
        if time.perf_counter() > spin_until:
            time.sleep(POLL_S)
