"""Closing a driver: workers get STOP once, a lost group gets no message."""

import gc
import threading
import time
import weakref

import pytest

from moss_tp.engine.running import driver as driver_module
from moss_tp.engine.running.driver import Driver
from moss_tp.engine.running.worker import STOP
from moss_tp.errors import EngineDeadError
from tests.moss_tp.engine.running.driver_fakes import DeviceRunner, FakeGroup, FakeRunner, a_batch


def a_driver() -> tuple[Driver, FakeGroup, list[str]]:
    group, reasons = FakeGroup(2), list[str]()
    driver = Driver(FakeRunner(group).as_runner, 8, 600)
    driver.watch(reasons.append)
    return driver, group, reasons


def test_close_stops_the_workers_once() -> None:
    before = set(threading.enumerate())
    driver, group, reasons = a_driver()
    driver.close()
    driver.close()
    assert group.sent == [STOP.tolist()]
    assert (group.num_closed, driver.is_closed, driver.is_alive) == (1, True, True)
    assert set(threading.enumerate()) <= before, "heartbeat and watch have ended"
    assert reasons == []


def test_a_closed_driver_runs_nothing_and_loses_no_rank() -> None:
    driver, group, reasons = a_driver()
    driver.close()
    driver.fail("a rank ended after STOP")
    assert reasons == []
    with pytest.raises(EngineDeadError, match="is closed"):
        driver.submit(a_batch(), ()).result()
    assert group.sent == [STOP.tolist()]


def test_a_lost_group_gets_no_stop() -> None:
    """The workers may be gone, and a collective would wait for its timeout."""
    driver, group, _ = a_driver()
    driver.fail("rank 1 ended")
    driver.close()
    assert (group.sent, group.num_closed) == ([], 1)


def test_close_succeeds_when_a_worker_has_just_died() -> None:
    driver, group, _ = a_driver()
    group.error = RuntimeError("connection reset")
    driver.close()
    assert group.num_closed == 1


def test_close_does_not_wait_for_a_rank_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat waits for its answer; leaving the group ends that wait."""
    monkeypatch.setattr(driver_module, "CLOSE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(driver_module, "MAX_INTERVAL_S", 0.02)
    is_waiting, has_left = threading.Event(), threading.Event()

    class HangingGroup(FakeGroup):
        def barrier(self) -> None:
            is_waiting.set()
            assert has_left.wait(30)

        def close(self) -> None:
            super().close()
            has_left.set()

    group = HangingGroup(2)
    driver = Driver(FakeRunner(group).as_runner, 8, 600)
    assert is_waiting.wait(10)
    driver.close()
    assert group.num_closed == 1
    assert STOP.tolist() not in group.sent


def test_two_threads_that_close_send_one_stop() -> None:
    """One waits for the step in flight meanwhile."""
    group = FakeGroup(2)
    runner = DeviceRunner(group)
    driver = Driver(runner.as_runner, 8, 600)
    driver.submit(a_batch(), ())
    threads = [threading.Thread(target=driver.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    runner.pending[0].end()
    for thread in threads:
        thread.join(10)
    assert (group.sent.count(STOP.tolist()), group.num_closed) == (1, 1)


def test_a_closed_driver_holds_no_runner() -> None:
    """Nor is the runner in a cycle: its memory is free without a garbage collection."""
    runner = DeviceRunner(FakeGroup(1))
    driver = Driver(runner.as_runner, 8, 600)
    driver.watch(driver.fail)  # a cycle
    driver.submit(a_batch(), ())
    runner.pending[0].end()
    driver.close()
    is_gone = weakref.ref(runner)
    gc.disable()
    try:
        del runner
        assert is_gone() is None
        assert (driver.forward_s, driver.max_in_flight, driver.num_blocks) == (1.5, 2, 8)
        is_closed_gone = weakref.ref(driver)
        del driver
        assert is_closed_gone() is None
    finally:
        gc.enable()
