"""A step counter that does not rise is a hang only while the engine has requests."""

from dataclasses import dataclass

import pytest

from moss_tp.errors import EngineDeadError
from serve_app.deployments.progress import Progress


@dataclass(frozen=True)
class Counters:
    running: int
    waiting: int
    steps: int


def test_an_idle_engine_is_never_hung() -> None:
    watch = Progress(limit_s=10)
    for now in (0.0, 100.0, 200.0):
        watch.check(Counters(0, 0, 5), now)


def test_an_engine_that_steps_is_never_hung() -> None:
    watch = Progress(limit_s=10)
    for steps in range(5):
        watch.check(Counters(1, 0, steps), steps * 9.0)


@pytest.mark.parametrize("counters", [Counters(1, 0, 5), Counters(0, 1, 5)])
def test_a_step_beyond_the_limit_is_a_dead_engine(counters: Counters) -> None:
    watch = Progress(limit_s=10)
    watch.check(counters, 100)
    watch.check(counters, 110)
    with pytest.raises(EngineDeadError, match="11 s"):
        watch.check(counters, 111)


def test_time_spent_idle_does_not_count() -> None:
    watch = Progress(limit_s=10)
    watch.check(Counters(1, 0, 5), 0)
    watch.check(Counters(0, 0, 5), 50)
    watch.check(Counters(1, 0, 5), 59)
    with pytest.raises(EngineDeadError):
        watch.check(Counters(1, 0, 5), 61)
