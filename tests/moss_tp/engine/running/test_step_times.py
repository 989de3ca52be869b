"""The limit of a step: never below what steps take, and near it once they are known.

Times are drawn from what the model promises: a constant plus a multiple of each count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.running.step_times import (
    DECAY,
    FACTOR,
    MIN_LIMIT_S,
    NO_STEP,
    StepSize,
    StepTimes,
)
from moss_tp.engine.scheduling.batch import Batch

MAX_LIMIT_S = 600.0
BUSY = FACTOR * 0.99  # how many times slower a step may be than the fastest of its kind

sizes = st.builds(StepSize, st.integers(1, 4096), st.integers(1, 4096 * 2048), st.integers(0, 4096))
costs = st.floats(0, 0.1)


@dataclass(frozen=True)
class Machine:
    """Seconds: of any step, of a token, of an attended pair, of a row of logits."""

    step: float
    token: float
    attended: float
    logits: float

    def seconds(self, size: StepSize) -> float:
        return (
            self.step
            + self.token * size.tokens
            + self.attended * 1e-3 * size.attended
            + self.logits * size.logits
        )


machines = st.builds(Machine, st.floats(1e-4, 2), costs, costs, costs)
runs = st.lists(st.tuples(sizes, st.floats(1, BUSY)), max_size=40)


def learn(machine: Machine, run: Sequence[tuple[StepSize, float]]) -> StepTimes:
    times = StepTimes(MAX_LIMIT_S)
    for size, slowness in run:
        times.record(size, machine.seconds(size) * slowness)
    return times


@given(machines, runs, sizes, st.floats(1, BUSY))
def test_no_step_of_a_busy_machine_is_beyond_its_limit(
    machine: Machine, run: list[tuple[StepSize, float]], size: StepSize, slowness: float
) -> None:
    seconds = machine.seconds(size) * slowness
    assert learn(machine, run).limit_s(size) >= min(seconds, MAX_LIMIT_S)


@given(machines, runs, sizes)
def test_the_limit_of_a_known_step_is_a_multiple_of_what_it_takes(
    machine: Machine, run: list[tuple[StepSize, float]], size: StepSize
) -> None:
    times = learn(machine, run)
    seconds = machine.seconds(size)
    for _ in range(1000):  # forgets what was slow
        times.record(size, seconds)
    # A class spans a factor of two.
    assert times.limit_s(size) <= max(MIN_LIMIT_S, 2 * FACTOR * seconds) * 1.001


@given(machines, runs, sizes, st.floats(0, 100))
def test_a_larger_step_bounds_all_smaller_ones(
    machine: Machine, run: list[tuple[StepSize, float]], size: StepSize, compiling_s: float
) -> None:
    """Even if the first of its kind was slow."""
    largest = StepSize(4096, 4096 * 2048, 4096, is_decode=False)
    times = learn(machine, [*run, (largest, 1.0)])
    times.record(size, machine.seconds(size) + compiling_s)
    if size.floor != largest.floor:
        limit = max(MIN_LIMIT_S, FACTOR * BUSY * machine.seconds(largest))
        assert times.limit_s(size) <= limit


@given(machines, sizes, sizes)
def test_the_first_step_of_a_kind_may_take_as_long_as_any(
    machine: Machine, known: StepSize, size: StepSize
) -> None:
    """It may compile kernels, whatever larger steps took."""
    times = learn(machine, [(known, 1.0)])
    if size.kind != known.kind:
        assert times.limit_s(size) == MAX_LIMIT_S


@given(sizes)
def test_before_anything_is_known_the_longest_limit_holds(size: StepSize) -> None:
    assert StepTimes(MAX_LIMIT_S).limit_s(size) == MAX_LIMIT_S
    assert StepTimes(0.5).limit_s(size) == 0.5


@given(sizes)
def test_heartbeats_teach_nothing_about_steps(size: StepSize) -> None:
    times = StepTimes(MAX_LIMIT_S)
    times.record(NO_STEP, 0.001)
    assert times.limit_s(size) == MAX_LIMIT_S
    assert times.limit_s(NO_STEP) == MIN_LIMIT_S


def test_a_group_that_runs_steps_answers_heartbeats() -> None:
    times = StepTimes(MAX_LIMIT_S)
    assert times.limit_s(NO_STEP) == MAX_LIMIT_S
    times.record(StepSize(1, 1, 1, is_decode=True), 0.01)
    assert times.limit_s(NO_STEP) == MIN_LIMIT_S


def test_a_slow_step_is_forgotten_slowly() -> None:
    times, size = StepTimes(MAX_LIMIT_S), StepSize(1, 1, 1, is_decode=True)
    times.record(size, 10)
    times.record(size, 0.01)
    assert times.limit_s(size) == pytest.approx(FACTOR * 10 * DECAY)
    for _ in range(500):
        times.record(size, 0.01)
    assert times.limit_s(size) == MIN_LIMIT_S


def test_the_size_of_a_batch() -> None:
    """Two chunks: 3 tokens of 7, with a token sampled, and 1 of 20, with none; then a decode."""
    ints = [2, 3, 1, 7, 20, 1, 0, 1, 2, 5, 5, 5, 6, 0, 1, 2]
    assert StepSize.of(Batch(np.array(ints))) == StepSize(4, 3 * 7 + 20, 1, is_decode=False)
    ints = [1, 1, 20, 1, 2, 5, 1, 2]
    assert StepSize.of(Batch(np.array(ints))) == StepSize(1, 20, 1, is_decode=True)


def test_a_device_has_a_least_limit_of_its_own() -> None:
    """Where a kernel may be compiled on first use, a step of milliseconds may take that long."""
    times = StepTimes(MAX_LIMIT_S, 20)
    size = StepSize(1, 1, 1, is_decode=True)
    for _ in range(100):
        times.record(size, 0.011)
    assert times.limit_s(size) == 20
    times.record(size, 3)
    assert times.limit_s(size) == FACTOR * 3
