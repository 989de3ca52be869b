"""The worker loop: it runs steps, answers heartbeats and ends with STOP."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.running import worker
from moss_tp.engine.running.runner import PendingStep
from moss_tp.engine.running.worker import HEARTBEAT, STOP, worker_loop
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.sampling.row import SampledToken, SamplingRow
from tests.moss_tp.engine.running.driver_fakes import FakeGroup, FakeRunner, a_batch

BATCH = a_batch().ints
messages = st.lists(st.sampled_from([HEARTBEAT, BATCH]), max_size=20)


@settings(deadline=None)
@given(messages, messages)
def test_steps_before_stop_are_run_in_order(before: list[object], after: list[object]) -> None:
    sent = [*before, STOP, *after]
    runner = FakeRunner(FakeGroup(2, sent))  # type: ignore[arg-type]
    worker_loop(runner.as_runner, 9)
    assert runner.num_blocks == 9
    num_steps = sum(message is BATCH for message in before)
    assert runner.batches == [BATCH.tolist()] * num_steps
    assert runner.group.num_barriers == len(before) - num_steps


def test_a_lost_rank_0_ends_the_loop() -> None:
    with pytest.raises(IndexError):
        worker_loop(FakeRunner(FakeGroup(2, [HEARTBEAT])).as_runner, 9)


def test_a_step_that_fails_ends_the_loop() -> None:
    def fail() -> None:
        raise ValueError("out of memory")

    runner = FakeRunner(FakeGroup(2, [BATCH, BATCH]), fail)
    with pytest.raises(ValueError, match="out of memory"):
        worker_loop(runner.as_runner, 9)
    assert len(runner.batches) == 1


class SlowStep:
    """Ends when it is looked at for the `looks`th time."""

    def __init__(self, looks: float) -> None:
        self.was_read = False
        self._looks = looks

    def is_done(self) -> bool:
        self._looks -= 1
        return self._looks <= 0

    def peek(self) -> bool:
        return self._looks <= 0

    def tokens(self) -> list[SampledToken]:
        assert self._looks <= 0, "read before it has ended"
        self.was_read = True
        return []


class SlowDevice(FakeRunner):
    """Two steps in flight; `num_open` counts those that were, at each launch."""

    max_in_flight = 2

    def __init__(self, group: FakeGroup, looks: float) -> None:
        super().__init__(group)
        self.num_open: list[int] = []
        self._looks = looks
        self._steps: list[SlowStep] = []

    def launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> PendingStep:
        self.num_open.append(sum(not step.was_read for step in self._steps))
        self._steps.append(SlowStep(self._looks))
        return self._steps[-1]


def test_no_more_steps_are_in_flight_than_the_runner_takes() -> None:
    runner = SlowDevice(FakeGroup(2, [BATCH, BATCH, HEARTBEAT, BATCH, BATCH, STOP]), looks=3)
    worker_loop(runner.as_runner, 9)
    assert runner.num_open == [0, 1, 1, 1]


def test_a_step_that_never_ends_does_not_hold_a_worker_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "LIMIT_S", 0.01)
    runner = SlowDevice(FakeGroup(2, [BATCH] * 3), looks=float("inf"))
    with pytest.raises(RuntimeError, match="has not ended a step"):
        worker_loop(runner.as_runner, 9)
    assert runner.num_open == [0, 1]
