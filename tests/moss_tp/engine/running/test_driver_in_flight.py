"""Steps in flight on a device: read in order, given up with the group, never blocked on."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from moss_tp.engine.running import driver as driver_module
from moss_tp.engine.running.driver import HEARTBEATS_PER_TIMEOUT, Driver
from moss_tp.engine.running.step import Step
from moss_tp.engine.running.worker import HEARTBEAT, STOP
from moss_tp.errors import EngineDeadError, StepMemoryError
from moss_tp.sampling.row import SampledToken
from tests.moss_tp.engine.running.driver_fakes import DeviceRunner, FakeGroup, PendingFake, a_batch
from tests.moss_tp.engine.running.test_driver import assert_true
from tests.support.waiting import wait_until

BATCH = a_batch().ints.tolist()


class Device:
    """A driver of two ranks with a device, and the reasons that its watcher received."""

    def __init__(self, step_timeout_s: float = 600) -> None:
        self.group = FakeGroup(2)
        self.runner = DeviceRunner(self.group)
        self.driver = Driver(self.runner.as_runner, 8, step_timeout_s)
        self.reasons: list[str] = []
        self.driver.watch(self.reasons.append)

    def submit(self) -> Step:
        return self.driver.submit(a_batch(), ())

    @property
    def pending(self) -> list[PendingFake]:
        return self.runner.pending


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    yield device
    for pending in device.pending:
        pending.end()
    device.driver.close()


def within(seconds: float, work: Callable[[], object]) -> bool:
    """Whether `work` ends in time, in a thread of its own."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def test_two_steps_are_sent_and_launched_before_a_result(device: Device) -> None:
    assert device.driver.max_in_flight == 2
    first, second = device.submit(), device.submit()
    assert device.group.sent == device.runner.batches == [BATCH, BATCH]
    device.pending[0].end()
    assert first.result() == [SampledToken(6)]
    device.pending[1].end()
    assert second.result() == [SampledToken(6)]


def test_a_result_is_waited_for(device: Device) -> None:
    step = device.submit()
    timer = threading.Timer(0.05, device.pending[0].end)
    timer.start()
    start = time.monotonic()
    assert step.result() == [SampledToken(6)]
    assert time.monotonic() - start >= 0.04


def test_a_step_that_never_ends_ends_the_group_within_its_limit() -> None:
    device = Device(step_timeout_s=0.2)
    step, behind = device.submit(), device.submit()
    start = time.monotonic()
    with pytest.raises(EngineDeadError, match="has not ended"):
        step.result()
    assert time.monotonic() - start < 3
    with pytest.raises(EngineDeadError, match="has not ended"):
        behind.result()
    assert len(device.reasons) == 1
    assert within(1, device.driver.close)
    assert STOP.tolist() not in device.group.sent


def test_a_lost_rank_ends_the_wait(device: Device) -> None:
    """A collective on the device waits for it, and ends never."""
    step = device.submit()
    threading.Timer(0.05, device.driver.fail, ["rank 1 ended"]).start()
    with pytest.raises(EngineDeadError, match="rank 1 ended"):
        step.result()
    with pytest.raises(EngineDeadError, match="rank 1 ended"):
        device.submit()
    assert len(device.pending) == 1


def test_a_device_that_fails_ends_the_group(device: Device) -> None:
    step = device.submit()
    device.pending[0].break_device()
    with pytest.raises(EngineDeadError, match="a step failed: an illegal memory access"):
        step.result()
    assert not device.driver.is_alive


def test_a_step_that_does_not_fit_costs_no_group(device: Device) -> None:
    """Found out when it is launched, or when it is read."""

    def fail() -> None:
        raise StepMemoryError("too large")

    device.runner.step = fail
    with pytest.raises(StepMemoryError, match="too large"):
        device.submit().result()
    device.runner.step = lambda: None
    step = device.submit()
    device.pending[0].error = StepMemoryError("too large")
    device.pending[0].end()
    with pytest.raises(StepMemoryError, match="too large"):
        step.result()
    step = device.submit()
    device.pending[1].end()
    assert step.result() == [SampledToken(6)]
    assert device.reasons == []


def test_close_does_not_block_on_a_stuck_device(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers may be stuck as well: they get no STOP but are ended."""
    monkeypatch.setattr(driver_module, "CLOSE_TIMEOUT_S", 0.1)
    device.submit()
    assert within(2, device.driver.close)
    assert device.group.num_closed == 1
    assert STOP.tolist() not in device.group.sent
    assert device.reasons == ["a step did not end while the engine was closed"]


def test_close_lets_a_step_in_flight_end(device: Device) -> None:
    device.submit()
    threading.Timer(0.05, device.pending[0].end).start()
    assert within(2, device.driver.close)
    assert device.group.sent == [BATCH, STOP.tolist()]
    assert device.reasons == []


def test_close_does_not_wait_for_a_launch_that_hangs(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue of a stuck device blocks whoever launches."""
    monkeypatch.setattr(driver_module, "CLOSE_TIMEOUT_S", 0.1)
    may_end = threading.Event()
    device.runner.step = lambda: assert_true(may_end.wait(30))
    assert not within(0.1, device.submit)
    assert within(2, device.driver.close)
    may_end.set()


def test_heartbeats_are_sent_only_while_nothing_is_in_flight() -> None:
    device = Device(0.05 * HEARTBEATS_PER_TIMEOUT)
    device.driver._watch._times._max_limit_s = 60
    step = device.submit()
    time.sleep(0.2)
    assert device.group.sent == [BATCH]
    device.pending[0].end()
    step.result()
    assert wait_until(lambda: HEARTBEAT.tolist() in device.group.sent, 10)
    device.driver.close()


def test_a_step_is_measured_from_the_end_of_the_step_before_it(device: Device) -> None:
    """Else the limits would be of two steps."""
    known: list[float] = []
    now = device.driver._watch._clock()

    def count_s() -> float:
        return now

    device.driver._stop_threads.set()  # the watch's ticks are this test's
    for thread in device.driver._threads:
        thread.join()
    watch = device.driver._watch
    watch._clock = count_s
    watch.tick()
    watch._times.record = lambda size, seconds: known.append(seconds)  # type: ignore[method-assign]
    steps = device.submit(), device.submit()
    for step, pending, seconds in zip(steps, device.pending, (0.2, 0.1), strict=True):
        now += seconds
        pending.end()
        step.result()
    assert known == pytest.approx([0.2, 0.1])


def test_a_step_that_ended_unread_is_not_stuck() -> None:
    device = Device(step_timeout_s=0.2)
    first, second = device.submit(), device.submit()
    device.pending[0].end()
    device.pending[1].end()
    watched = device.driver._watch._steps
    assert wait_until(lambda: all(step.was_done for step in watched), 10), "both were asked"
    assert first.result() == second.result() == [SampledToken(6)]
    assert device.reasons == []
    device.driver.close()


def test_a_ctrl_c_while_waiting_loses_nothing(device: Device) -> None:
    step = device.submit()

    def interrupt() -> bool:
        raise KeyboardInterrupt

    is_done, device.pending[0].is_done = device.pending[0].is_done, interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        step.result()
    device.pending[0].is_done = is_done  # type: ignore[method-assign]
    device.pending[0].end()
    assert step.result() == [SampledToken(6)]
    assert device.driver.is_alive
