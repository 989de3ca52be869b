"""Detects an engine whose thread hangs outside of a step, from its counters. It stops nothing.

A step that hangs is seen by `moss_tp.engine.running.step_watch`, which knows how long it may take.
"""

from typing import Protocol

from moss_tp.errors import EngineDeadError


class StepCounters(Protocol):
    """The part of `moss_tp.engine.async_engine.EngineStats` that Progress reads."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def steps(self) -> int: ...


class Progress:
    """While the engine has requests, its step counter must rise within `limit_s` seconds."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._steps = -1
        self._since = 0.0  # when the counter last rose or the engine was last idle

    def check(self, counters: StepCounters, now: float) -> None:
        """Raises EngineDeadError when the current step has been running for too long."""
        is_idle = counters.running + counters.waiting == 0
        if is_idle or counters.steps != self._steps:
            self._steps, self._since = counters.steps, now
        elif now - self._since > self._limit_s:
            raise EngineDeadError(
                f"no step has ended for {now - self._since:.0f} s while requests wait"
            )
