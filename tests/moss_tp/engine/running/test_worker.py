"""The worker loop: it runs steps, answers heartbeats and ends with STOP."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.running.worker import HEARTBEAT, STOP, worker_loop
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
