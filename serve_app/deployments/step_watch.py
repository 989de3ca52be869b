"""Tells a working engine from a stuck one. It looks at counters only and stops nothing."""

from typing import Protocol

from moss_tp.errors import EngineDeadError


class Progress(Protocol):
    """What of `moss_tp.engine.async_engine.EngineStats` it reads."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def steps(self) -> int: ...


class StepWatch:
    """While requests are there, the number of steps has to rise within `limit_s`."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._steps = -1
        self._since = 0.0  # when the number was last seen to rise, or nothing was asked

    def check(self, progress: Progress, now: float) -> None:
        """Raises EngineDeadError when the same step has been running for too long."""
        is_idle = progress.running + progress.waiting == 0
        if is_idle or progress.steps != self._steps:
            self._steps, self._since = progress.steps, now
        elif now - self._since > self._limit_s:
            raise EngineDeadError(
                f"no step has ended for {now - self._since:.0f} s while requests wait"
            )
