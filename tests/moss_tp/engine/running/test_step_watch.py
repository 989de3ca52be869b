"""The watch on a fake clock: stuck steps are seen, sleeping machines are not taken for them."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.running.step_times import FACTOR, MIN_LIMIT_S, StepSize, StepTimes
from moss_tp.engine.running.step_watch import MAX_TICK_S, TICK_S, StepWatch

SIZE = StepSize(1, 1, 1, is_decode=True)
MAX_LIMIT_S = 60.0
# A tick is late on a busy machine.
ticks = st.floats(TICK_S, MAX_TICK_S)


class Machine:
    """A watch and its clock."""

    def __init__(self, max_limit_s: float = MAX_LIMIT_S) -> None:
        self.now = 1000.0
        self.times = StepTimes(max_limit_s)
        self.watch = StepWatch(self.times, lambda: self.now)

    def pass_time(self, seconds: float, tick_s: float = TICK_S) -> str | None:
        """What a tick said, while `seconds` pass with one tick every `tick_s`."""
        end = self.now + seconds
        while self.now + tick_s < end:
            self.now += tick_s
            if (reason := self.watch.tick()) is not None:
                return reason
        self.now = end
        return None

    def run(self, seconds: float, size: StepSize = SIZE, tick_s: float = TICK_S) -> None:
        with self.watch.step(size):
            assert self.pass_time(seconds, tick_s) is None


@given(st.lists(st.tuples(st.floats(0.01, 0.2), st.floats(0, 1)), max_size=30), ticks)
def test_slow_steps_are_not_stuck(steps: Sequence[tuple[float, float]], tick_s: float) -> None:
    """None is slower than FACTOR times the fastest."""
    machine = Machine()
    fastest = min((seconds for seconds, _ in steps), default=1)
    for seconds, idle in steps:
        machine.run(seconds)
        assert machine.pass_time(idle) is None
    machine.run(max(MIN_LIMIT_S, FACTOR * fastest) - 0.001, tick_s=tick_s)


@given(st.lists(st.floats(0.01, 0.2), min_size=1), ticks, st.floats(0, 1))
def test_a_stuck_step_is_seen_soon_after_its_limit(
    steps: Sequence[float], tick_s: float, idle: float
) -> None:
    machine = Machine()
    for seconds in steps:
        machine.run(seconds)
    assert machine.pass_time(idle) is None
    limit = machine.times.limit_s(SIZE)
    start = machine.now
    with machine.watch.step(SIZE):
        reason = machine.pass_time(10 * MAX_LIMIT_S, tick_s)
    assert reason is not None and "a step of 1 tokens has not ended" in reason
    assert limit < machine.now - start <= limit + 2 * MAX_TICK_S
    assert limit <= max(MIN_LIMIT_S, FACTOR * max(steps))


@given(st.lists(st.floats(0.01, 3), min_size=1), ticks)
def test_a_late_step_is_told_within_two_seconds_or_five_such_steps(
    steps: Sequence[float], tick_s: float
) -> None:
    """And none that takes as long as one did before, nor once it has ended."""
    machine = Machine()
    for seconds in steps:
        machine.run(seconds)
        assert machine.watch.late is None
    start = machine.now
    with machine.watch.step(SIZE):
        while machine.watch.late is None:
            assert machine.now - start <= max(2, 5 * max(steps))
            machine.now += tick_s
            assert machine.watch.tick() is None, "it is late long before it is stuck"
        assert machine.now - start > max(steps)
        assert "a step of 1 tokens has not ended" in machine.watch.late
    assert machine.watch.late is None


def test_the_largest_prefill_is_not_late_after_small_ones() -> None:
    """Of which the group knows only smaller steps; each of its numbers grew by as much."""
    machine = Machine(max_limit_s=600)
    small = StepSize(600, 600 * 8, 1, is_decode=False)
    large = StepSize(1024, 1024 * 2048, 1, is_decode=False)
    machine.run(0.2, small)
    with machine.watch.step(large):
        assert machine.pass_time(0.2 * large.ratio(small)) is None
        assert machine.watch.late is None


def test_a_first_step_may_take_until_the_longest_limit() -> None:
    machine = Machine()
    machine.run(MAX_LIMIT_S - 0.001)
    machine = Machine()
    with machine.watch.step(SIZE):
        assert machine.pass_time(MAX_LIMIT_S + 1) is not None


@given(st.floats(1, 1e6), st.integers(1, 5))
def test_a_machine_that_sleeps_within_a_step_is_not_stuck(asleep: float, naps: int) -> None:
    """Then no tick comes either; and the nap says nothing about what a step takes."""
    machine = Machine()
    machine.run(0.01)
    with machine.watch.step(SIZE):
        for _ in range(naps):
            machine.now += asleep
            assert machine.watch.tick() is None
    assert machine.times.limit_s(SIZE) <= max(MIN_LIMIT_S, FACTOR * (naps + 1) * MAX_TICK_S)


def test_a_step_that_fails_teaches_nothing() -> None:
    machine = Machine()
    with pytest.raises(RuntimeError), machine.watch.step(SIZE):
        raise RuntimeError("a rank is gone")
    assert machine.times.limit_s(SIZE) == MAX_LIMIT_S
    assert machine.pass_time(2 * MAX_LIMIT_S) is None, "nothing runs"
