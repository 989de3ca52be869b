"""An engine with two steps in flight: its order of work, drafts, closing, and its death."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from moss_tp.engine import async_engine
from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.driver import Driver
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.errors import EngineDeadError
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.running.driver_fakes import DeviceRunner, FakeGroup
from tests.moss_tp.engine.running.test_driver import assert_true
from tests.moss_tp.engine.scheduling.device_fake import DeviceFake, QueuedStep
from tests.moss_tp.engine.scheduling.paged_fake import (
    FAKE_IDS,
    FakeTokenizer,
    expected_reply,
    fake_config,
    next_token,
)
from tests.support.waiting import wait_until

ENDLESS = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)


class Clock:
    """Seconds that only the device's steps and the host's gaps take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fake_engine(fake: DeviceFake, clock: Clock | None = None, **changes: object) -> LLMEngine:
    config = fake_config(device="cuda", **changes)
    return LLMEngine(config, fake, FakeTokenizer(), FAKE_IDS, clock or Clock())


def test_a_step_is_queued_before_the_one_before_it_has_ended() -> None:
    fake = DeviceFake(16, 4, next_token)
    engine = fake_engine(fake)
    engine.add_request(EngineRequest("a", [1, 2, 3], ENDLESS))
    engine.start_step()
    assert len(fake.queue) == 2
    assert fake.queue[1].batch.token_ids.tolist() == [-1], "the first token of the step before"
    assert engine.take_deltas() == []
    engine.finish_step()
    engine.start_step()
    assert len(fake.queue) == 2, "the text is told while both are on their way"
    ((_, delta),) = engine.take_deltas()
    assert list(delta.token_ids) == expected_reply([1, 2, 3], 1, frozenset(), 32)


def test_no_step_is_queued_for_a_sequence_at_its_end() -> None:
    fake = DeviceFake(16, 4, next_token)
    engine = fake_engine(fake)
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    engine.add_request(EngineRequest("a", [1], params))
    while engine.has_work:
        engine.step()
    assert fake.num_launched == 3


def test_a_void_step_is_read_before_the_engine_is_idle() -> None:
    """It ran for a reply that had ended by then."""
    reply = expected_reply([1], 9, frozenset(), 32)
    fake = DeviceFake(16, 4, next_token)
    engine = fake_engine(fake)
    stop = SamplingParams(temperature=0, stop_token_ids=(reply[3],), max_tokens=20)
    engine.add_request(EngineRequest("a", [1], stop))
    while engine.has_work:
        engine.step()
    assert (fake.num_launched, len(fake.queue)) == (reply.index(reply[3]) + 2, 0)
    engine.check_integrity()


@pytest.mark.parametrize(("gap_s", "drafts"), [(0.0, True), (1000.0, False)])
def test_drafts_are_made_where_the_gap_is_short(gap_s: float, drafts: bool) -> None:
    """The model repeats three tokens; a step takes a second."""
    clock = Clock()

    class Slow(DeviceFake):
        def execute(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> list[SampledToken]:
            clock.now += 1
            return super().execute(batch, rows)

        def submit(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> QueuedStep:
            if not self.queue:
                clock.now += gap_s
            return super().submit(batch, rows)

    fake = Slow(80, 4, lambda history: len(history) % 3)
    engine = fake_engine(fake, clock, max_model_len=300)
    params = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    engine.add_request(EngineRequest("a", [0, 1, 2], params))
    while engine.has_work:
        engine.step()
    assert engine.scheduler.num_accepted > 0, "it was tried"
    assert (fake.num_launched < 100) == drafts


def a_driven_engine(step_timeout_s: float) -> tuple[AsyncEngine, DeviceRunner, list[str]]:
    """On a Driver whose device ends no step by itself."""
    runner = DeviceRunner(FakeGroup(2))
    driver = Driver(runner.as_runner, 16, step_timeout_s)
    engine = LLMEngine(fake_config(device="cuda"), driver, FakeTokenizer(), FAKE_IDS)
    reasons: list[str] = []
    return AsyncEngine(engine, reasons.append), runner, reasons


def ends_within(seconds: float, work: Callable[[], object]) -> bool:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


async def test_a_stuck_device_fails_the_requests_and_close_returns() -> None:
    engine, runner, reasons = a_driven_engine(step_timeout_s=0.3)
    async with asyncio.timeout(10):
        with pytest.raises(EngineDeadError, match="has not ended"):
            await anext(engine.generate(EngineRequest("a", [1], ENDLESS)))
    assert len(runner.pending) == 2
    assert not engine.is_alive
    assert await asyncio.to_thread(wait_until, lambda: len(reasons) == 1, 10)
    assert await asyncio.to_thread(ends_within, 5, engine.close)
    assert len(reasons) == 1


async def test_close_returns_while_a_device_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps' limit is far away: closing has its own."""
    monkeypatch.setattr(async_engine, "CLOSE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("moss_tp.engine.running.driver.CLOSE_TIMEOUT_S", 0.2)
    engine, runner, _ = a_driven_engine(step_timeout_s=600.0)
    reading = asyncio.create_task(anext(engine.generate(EngineRequest("a", [1], ENDLESS))))
    async with asyncio.timeout(10):
        while len(runner.pending) < 2:
            await asyncio.sleep(0.01)
    assert await asyncio.to_thread(ends_within, 10, engine.close)
    with pytest.raises(EngineDeadError):
        await reading


async def test_close_gives_up_a_thread_that_launches_on_a_stuck_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(async_engine, "CLOSE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("moss_tp.engine.running.driver.CLOSE_TIMEOUT_S", 0.2)
    engine, runner, _ = a_driven_engine(step_timeout_s=0.3)
    may_end = threading.Event()
    runner.step = lambda: assert_true(may_end.wait(30))
    reading = asyncio.create_task(anext(engine.generate(EngineRequest("a", [1], ENDLESS))))
    await asyncio.to_thread(runner.is_in_step.wait, 10)
    assert await asyncio.to_thread(ends_within, 10, engine.close)
    may_end.set()
    with pytest.raises(EngineDeadError):
        await reading


async def test_replies_side_by_side_aborted_and_whole() -> None:
    engine = AsyncEngine(fake_engine(DeviceFake(64, 4, next_token)))
    params = SamplingParams(temperature=0, max_tokens=20)

    async def read(i: int) -> list[int]:
        tokens: list[int] = []
        stream = engine.generate(EngineRequest(str(i), [i, 2, 3], params))
        async for delta in stream:
            tokens += delta.token_ids
            if i % 3 == 2 and len(tokens) > 4:
                break
        await stream.aclose()
        return tokens

    replies = await asyncio.gather(*map(read, range(20)))
    for i, reply in enumerate(replies):
        expected = expected_reply([i, 2, 3], 20, frozenset([96]), 32)
        assert reply == (expected[: len(reply)] if i % 3 == 2 else expected)
    async with asyncio.timeout(5):
        while engine.stats().free_blocks < 64:
            await asyncio.sleep(0.01)
    engine.close()
