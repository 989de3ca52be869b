"""How a driver ends: workers are told to stop once, a lost group is told nothing."""

import threading

import pytest

from moss_tp.engine.running.driver import Driver
from moss_tp.engine.running.worker import STOP
from moss_tp.errors import EngineDeadError
from tests.moss_tp.engine.running.driver_fakes import FakeGroup, FakeRunner, a_batch


def a_driver() -> tuple[Driver, FakeGroup, list[str]]:
    group, reasons = FakeGroup(2), list[str]()
    driver = Driver(FakeRunner(group).as_runner, 8, 600)
    driver.watch(reasons.append)
    return driver, group, reasons


def test_closing_stops_the_workers_once() -> None:
    before = set(threading.enumerate())
    driver, group, reasons = a_driver()
    driver.close()
    driver.close()
    assert group.sent == [STOP.tolist()]
    assert (group.num_closed, driver.is_closed, driver.is_alive) == (1, True, True)
    assert set(threading.enumerate()) <= before, "the heartbeat has ended"
    assert reasons == []


def test_a_closed_driver_runs_nothing_and_loses_no_rank() -> None:
    driver, group, reasons = a_driver()
    driver.close()
    driver.fail("a rank ended, as it was told to")
    assert reasons == []
    with pytest.raises(EngineDeadError, match="is closed"):
        driver.execute(a_batch(), ())
    assert group.sent == [STOP.tolist()]


def test_a_lost_group_gets_no_stop() -> None:
    """Nobody may listen any more, and a collective would wait for its timeout."""
    driver, group, _ = a_driver()
    driver.fail("rank 1 ended")
    driver.close()
    assert (group.sent, group.num_closed) == ([], 1)


def test_a_worker_that_has_just_died_does_not_spoil_closing() -> None:
    driver, group, _ = a_driver()
    group.error = RuntimeError("connection reset")
    driver.close()
    assert group.num_closed == 1
