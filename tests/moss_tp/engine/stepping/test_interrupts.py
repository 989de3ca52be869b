"""Ctrl-C in the main thread while a step is launched on a device: the engine goes on."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.driver import Driver
from moss_tp.engine.running.runner import PendingStep
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.running.driver_fakes import DeviceRunner, FakeGroup, PendingFake
from tests.moss_tp.engine.scheduling.paged_fake import FAKE_IDS, FakeTokenizer, fake_config

PARAMS = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """Also where the run is in a shell's background, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    """The main thread is interrupted, whichever calls this; another one goes on."""
    signal.raise_signal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        time.sleep(0.05)


class Counted(PendingFake):
    """Ends by itself; its slot is free once it is read."""

    def __init__(self, runner: "Slots") -> None:
        super().__init__()
        self.end()
        self._runner = runner

    def tokens(self) -> list[SampledToken]:
        self._runner.taken.discard(self)
        return super().tokens()


class Slots(DeviceRunner):
    """Has two slots. `before` and `after` run around the fourth launch."""

    before: Callable[[], None] = staticmethod(lambda: None)
    after: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, group: FakeGroup) -> None:
        super().__init__(group)
        self.taken: set[PendingStep] = set()
        self.num_launches = 0

    def launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> PendingStep:
        self.num_launches += 1
        is_fourth = self.num_launches == 4
        if is_fourth:
            self.before()
        self.run(batch, rows)
        step = Counted(self)
        self.taken.add(step)
        assert len(self.taken) <= 2, "too many steps are in flight"
        if is_fourth:
            self.after()
        return step


@contextmanager
def engine_on(runner: Slots) -> Iterator[tuple[LLMEngine, Driver]]:
    driver = Driver(runner.as_runner, 16, 600)
    engine = LLMEngine(fake_config(device="cuda"), driver, FakeTokenizer(), FAKE_IDS)
    yield engine, driver
    engine.close()


def reply_len(engine: LLMEngine, name: str) -> int:
    engine.add_request(EngineRequest(name, [1, 2], PARAMS))
    length = 0
    while engine.has_work:
        length += sum(len(delta.token_ids) for _, delta in engine.step())
    return length


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("where", ["before", "after"])
def test_ctrl_c_during_a_launch_loses_no_step(where: str, num_ranks: int) -> None:
    runner = Slots(FakeGroup(num_ranks))
    setattr(runner, where, press_ctrl_c)
    with engine_on(runner) as (engine, driver):
        with pytest.raises(KeyboardInterrupt):
            reply_len(engine, "a")
        engine.abort("a")
        for name in "bcd":
            assert reply_len(engine, name) == 6
        assert driver.is_alive
        assert (runner.taken, driver._in_flight, driver._watch._steps) == (set(), [], ())


def test_ctrl_c_between_two_instructions_of_a_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is queued, and not yet submitted."""
    runner = Slots(FakeGroup(1))
    with engine_on(runner) as (engine, driver):
        ensure, calls = engine._stepper._ensure_submitted, [0]

        def interrupted(*args: object) -> None:
            calls[0] += 1
            if calls[0] == 4:
                press_ctrl_c()
            ensure(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(engine._stepper, "_ensure_submitted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reply_len(engine, "a")
        engine.abort("a")
        assert reply_len(engine, "b") == 6
        assert (driver.is_alive, runner.taken, driver._watch._steps) == (True, set(), ())


def test_an_interrupted_launch_leaves_no_watched_step() -> None:
    """In whatever thread: an idle engine would seem stuck."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    runner = DeviceRunner(FakeGroup(1), interrupt)
    driver = Driver(runner.as_runner, 16, 600)
    with pytest.raises(KeyboardInterrupt):
        driver.submit(Batch.of([], 4), ())
    assert driver._watch._steps == ()
    assert driver.is_alive
    driver.close()
