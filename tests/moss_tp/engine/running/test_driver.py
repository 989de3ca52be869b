"""Rank 0's driver on a fake group: step messages, heartbeats, the first failure, closing."""

import threading
import time
from collections.abc import Iterator

import pytest

from moss_tp.engine.running.driver import HEARTBEATS_PER_TIMEOUT, Driver
from moss_tp.engine.running.worker import HEARTBEAT
from moss_tp.errors import EngineDeadError
from moss_tp.sampling.row import SampledToken
from tests.moss_tp.engine.running.driver_fakes import FakeGroup, FakeRunner, a_batch
from tests.support.waiting import wait_until

INTERVAL_S = 0.02
BATCH = a_batch().ints.tolist()


class Ranks:
    """A driver of `size` ranks, and the reasons that its watcher received."""

    def __init__(self, size: int, interval_s: float = 60) -> None:
        self.group = FakeGroup(size)
        self.runner = FakeRunner(self.group)
        timeout_s = interval_s * HEARTBEATS_PER_TIMEOUT
        self.driver = Driver(self.runner.as_runner, 8, timeout_s)
        self.reasons: list[str] = []
        self.driver.watch(self.reasons.append)

    def step(self) -> list[SampledToken]:
        return self.driver.submit(a_batch(), ()).result()


def assert_true(value: bool) -> None:
    assert value


@pytest.fixture
def two() -> Iterator[Ranks]:
    """Two ranks whose heartbeat interval is longer than the test."""
    ranks = Ranks(2)
    yield ranks
    ranks.driver.close()


@pytest.fixture
def idle() -> Iterator[Ranks]:
    ranks = Ranks(2, INTERVAL_S)
    yield ranks
    ranks.driver.close()


def test_a_step_is_sent_to_the_workers_and_runs_on_rank_0(two: Ranks) -> None:
    assert two.step() == [SampledToken(5, -0.5)]
    assert two.group.sent == two.runner.batches == [BATCH]
    assert (two.runner.num_blocks, two.driver.num_blocks, two.driver.forward_s) == (8, 8, 1.5)


def test_a_single_rank_sends_nothing() -> None:
    before = set(threading.enumerate())
    ranks = Ranks(1, INTERVAL_S)
    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert "moss-watch" in names and "moss-heartbeat" not in names
    assert ranks.step()
    ranks.driver.close()
    assert ranks.group.sent == []
    assert ranks.group.num_closed == 1


def test_an_idle_group_gets_heartbeats(idle: Ranks) -> None:
    assert wait_until(lambda: len(idle.group.sent) >= 3, 10)
    assert idle.group.sent[:3] == [HEARTBEAT.tolist()] * 3
    assert idle.group.num_barriers >= 2, "each is answered before the next one"


def test_no_heartbeat_is_sent_during_a_step(idle: Ranks) -> None:
    def long_step() -> None:
        sent = list(idle.group.sent)
        time.sleep(5 * INTERVAL_S)
        assert idle.group.sent == sent

    idle.runner.step = long_step
    idle.step()
    assert idle.reasons == []


def test_a_heartbeat_that_fails_is_a_lost_rank(idle: Ranks) -> None:
    idle.group.error = RuntimeError("connection reset")
    assert wait_until(lambda: bool(idle.reasons), 10)
    assert idle.reasons == ["a rank is gone: connection reset"]
    with pytest.raises(EngineDeadError, match="connection reset"):
        idle.step()
    assert idle.runner.batches == []


@pytest.mark.parametrize("size", [1, 2])
def test_a_stuck_step_ends_the_group(size: int) -> None:
    """`result` cannot return, but the watchers are called from another thread."""
    ranks = Ranks(size, INTERVAL_S)
    may_end = threading.Event()
    ranks.runner.step = lambda: assert_true(may_end.wait(30))
    stuck = threading.Thread(target=ranks.step)
    stuck.start()
    assert wait_until(lambda: bool(ranks.reasons), 10)
    assert "a step of 1 tokens has not ended" in ranks.reasons[0]
    assert (ranks.driver.is_alive, stuck.is_alive()) == (False, True)
    may_end.set()
    stuck.join()
    ranks.driver.close()


def test_a_heartbeat_without_an_answer_ends_an_idle_group(idle: Ranks) -> None:
    may_end = threading.Event()
    idle.group.barrier = lambda: assert_true(may_end.wait(30))  # type: ignore[method-assign]
    assert wait_until(lambda: bool(idle.reasons), 10)
    assert "has not ended" in idle.reasons[0]
    may_end.set()


def test_a_step_that_fails_ends_the_group(two: Ranks) -> None:
    def fail() -> None:
        raise ValueError("out of memory")

    two.runner.step = fail
    for _ in range(2):
        with pytest.raises(EngineDeadError, match="a step failed: out of memory"):
            two.step()
    assert len(two.runner.batches) == 1
    assert two.reasons == ["a step failed: out of memory"]
    assert not two.driver.is_alive


def test_a_step_that_fails_after_a_lost_rank_reports_the_rank(two: Ranks) -> None:
    """The sentinel reports first; the step's error only follows from it."""

    def lose_a_rank() -> None:
        two.driver.fail("rank 1 ended")
        raise RuntimeError("peer closed the connection")

    two.runner.step = lose_a_rank
    with pytest.raises(EngineDeadError, match="rank 1 ended"):
        two.step()
    assert two.reasons == ["rank 1 ended"]


def test_only_the_first_reason_counts_and_late_watchers_get_it(two: Ranks) -> None:
    two.driver.fail("first")
    two.driver.fail("second")
    late: list[str] = []
    two.driver.watch(late.append)
    assert two.reasons == late == ["first"]


@pytest.mark.parametrize(("size", "is_alive"), [(1, True), (2, False)])
def test_a_ctrl_c_in_a_step_is_fatal_only_with_workers(size: int, is_alive: bool) -> None:
    """Workers wait in a step that rank 0 does not finish."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    ranks = Ranks(size)
    ranks.runner.step = interrupt
    with pytest.raises(KeyboardInterrupt):
        ranks.step()
    assert ranks.driver.is_alive == is_alive
    ranks.driver.close()


def test_a_watcher_that_fails_does_not_keep_the_next_from_being_called() -> None:
    driver = Ranks(1).driver
    reasons: list[str] = []

    def fail(reason: str) -> None:
        raise PermissionError(reason)

    driver.watch(fail)
    driver.watch(reasons.append)
    driver.fail("a rank is gone")
    assert reasons == ["a rank is gone"]
    driver.close()
