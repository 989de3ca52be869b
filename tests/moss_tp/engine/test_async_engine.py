"""The engine's thread: streams, aborts within a step, errors when it dies, no CPU when idle."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest

from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.errors import (
    ContextLengthError,
    DeadlineExceededError,
    EngineDeadError,
    InvalidRequestError,
    QueueFullError,
)
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import (
    EOS_ID,
    PagedFake,
    expected_reply,
    fake_engine,
)

PARAMS = SamplingParams(temperature=0, max_tokens=20)
ENDLESS = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)


class SteppedFake(PagedFake):
    """Computes a step only when the test allows one, and fails once `is_broken` is set."""

    def __init__(self) -> None:
        super().__init__(num_blocks=32, block_size=4)
        self.allowed = threading.Semaphore(0)
        self.is_broken = False

    def execute(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> list[SampledToken]:
        self.allowed.acquire()
        if self.is_broken:
            raise EngineDeadError("rank 1 ended")
        return super().execute(batch, rows)


@pytest.fixture
def stepped() -> Iterator[tuple[AsyncEngine, SteppedFake]]:
    executor = SteppedFake()
    engine = AsyncEngine(fake_engine(executor))
    yield engine, executor
    executor.allowed.release(1000)
    engine.close()


@pytest.fixture
def free_running() -> Iterator[AsyncEngine]:
    engine = AsyncEngine(fake_engine())
    yield engine
    engine.close()


async def collect(stream: AsyncIterator[TokenDelta]) -> list[int]:
    return [token_id async for delta in stream for token_id in delta.token_ids]


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_true():
            await asyncio.sleep(0.002)


async def test_streams_side_by_side(free_running: AsyncEngine) -> None:
    prompts = [[i, 2, 3] for i in range(20)]
    replies = await asyncio.gather(
        *(collect(free_running.generate(EngineRequest(str(p), p, PARAMS))) for p in prompts)
    )
    assert replies == [expected_reply(p, 20, frozenset([EOS_ID]), 32) for p in prompts]
    stats = free_running.stats()
    assert (stats.running, stats.waiting, stats.free_blocks) == (0, 0, stats.num_blocks)
    assert stats.steps > 0
    assert (stats.prompt_tokens, stats.cached_tokens) == (60, 0)
    assert stats.output_tokens == sum(map(len, replies))


async def test_closing_a_stream_aborts_within_one_step(
    stepped: tuple[AsyncEngine, SteppedFake],
) -> None:
    engine, executor = stepped
    stream = engine.generate(EngineRequest("a", [1, 2, 3], ENDLESS))
    executor.allowed.release()
    await anext(stream)
    assert engine.stats().free_blocks < 32
    await stream.aclose()
    executor.allowed.release()  # the step that may have started already
    await until(lambda: engine.stats().free_blocks == 32)
    assert engine.stats().steps <= 2
    assert engine.stats().running == 0


async def test_cancelling_the_reader_aborts(stepped: tuple[AsyncEngine, SteppedFake]) -> None:
    engine, executor = stepped
    task = asyncio.create_task(collect(engine.generate(EngineRequest("a", [1, 2, 3], ENDLESS))))
    executor.allowed.release(2)
    await until(lambda: engine.stats().steps == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    executor.allowed.release()
    await until(lambda: engine.stats().free_blocks == 32)
    assert engine.stats().steps <= 3


async def test_aborting_one_leaves_the_other(stepped: tuple[AsyncEngine, SteppedFake]) -> None:
    engine, executor = stepped
    gone = engine.generate(EngineRequest("gone", [1, 2, 3], ENDLESS))
    kept = asyncio.create_task(collect(engine.generate(EngineRequest("kept", [4, 5], PARAMS))))
    executor.allowed.release(2)
    await anext(gone)
    await gone.aclose()
    executor.allowed.release(100)
    assert await kept == expected_reply([4, 5], 20, frozenset([EOS_ID]), 32)


async def test_an_id_is_free_again_after_an_abort(free_running: AsyncEngine) -> None:
    stream = free_running.generate(EngineRequest("a", [1, 2, 3], ENDLESS))
    await anext(stream)
    await stream.aclose()
    assert await collect(free_running.generate(EngineRequest("a", [7], PARAMS))) == expected_reply(
        [7], 20, frozenset([EOS_ID]), 32
    )


async def test_a_rejected_request_raises_and_does_not_affect_others(
    stepped: tuple[AsyncEngine, SteppedFake],
) -> None:
    engine, executor = stepped
    running = asyncio.create_task(collect(engine.generate(EngineRequest("a", [1], PARAMS))))
    executor.allowed.release(1000)
    with pytest.raises(ContextLengthError):
        await collect(engine.generate(EngineRequest("b", [1] * 32, PARAMS)))
    with pytest.raises(InvalidRequestError):
        await collect(engine.generate(EngineRequest("c", [], PARAMS)))
    assert await running == expected_reply([1], 20, frozenset([EOS_ID]), 32)


async def test_a_rejected_duplicate_does_not_abort_the_first(
    stepped: tuple[AsyncEngine, SteppedFake],
) -> None:
    engine, executor = stepped
    first = asyncio.create_task(collect(engine.generate(EngineRequest("a", [1], PARAMS))))
    await until(lambda: engine.stats().running == 1)
    second = asyncio.create_task(collect(engine.generate(EngineRequest("a", [1], PARAMS))))
    await asyncio.sleep(0)  # it is posted now, while the first is in its first step
    executor.allowed.release(1000)
    assert await first == expected_reply([1], 20, frozenset([EOS_ID]), 32)
    with pytest.raises(InvalidRequestError):
        await second


async def test_a_full_queue_rejects() -> None:
    executor = SteppedFake()
    engine = AsyncEngine(fake_engine(executor, max_waiting=1, max_num_seqs=1))
    tasks = [
        asyncio.create_task(collect(engine.generate(EngineRequest(str(i), [i], PARAMS))))
        for i in range(4)
    ]
    executor.allowed.release(1000)
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(reply, QueueFullError) for reply in replies)
    assert replies[0] == expected_reply([0], 20, frozenset([EOS_ID]), 32)
    engine.close()


async def test_a_deadline_in_the_queue_fails_only_its_request() -> None:
    executor = SteppedFake()
    engine = AsyncEngine(fake_engine(executor, max_num_seqs=1))
    running = asyncio.create_task(
        collect(engine.generate(EngineRequest("a", [1], PARAMS, deadline_s=60)))
    )
    await until(lambda: engine.stats().running == 1)
    late = asyncio.create_task(
        collect(engine.generate(EngineRequest("b", [2], PARAMS, deadline_s=0)))
    )
    await asyncio.sleep(0)  # it is posted now, while the first is in its first step
    executor.allowed.release(1000)
    with pytest.raises(DeadlineExceededError):
        await late
    assert await running == expected_reply([1], 20, frozenset([EOS_ID]), 32)
    engine.close()


async def test_a_failed_step_fails_every_request() -> None:
    executor, reasons = SteppedFake(), list[str]()
    engine = AsyncEngine(fake_engine(executor, max_num_seqs=1), reasons.append)
    tasks = [
        asyncio.create_task(collect(engine.generate(EngineRequest(str(i), [i], PARAMS))))
        for i in range(3)
    ]
    await until(lambda: engine.stats().running == 1)
    executor.is_broken = True
    executor.allowed.release()
    for reply in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(reply, EngineDeadError)
    await until(lambda: reasons == ["rank 1 ended"])
    assert not engine.is_alive
    with pytest.raises(EngineDeadError, match="rank 1 ended"):
        await collect(engine.generate(EngineRequest("late", [1], PARAMS)))
    engine.close()
    assert executor.is_closed
    assert reasons == ["rank 1 ended"]


async def test_an_idle_engine_notices_a_lost_rank() -> None:
    executor, reasons = PagedFake(16, 4), list[str]()
    engine = AsyncEngine(fake_engine(executor), reasons.append)
    assert engine.is_alive
    assert executor.on_death is not None
    executor.on_death("rank 1 was killed")
    await until(lambda: reasons == ["rank 1 was killed"])
    assert not engine.is_alive
    engine.close()


async def test_close_ends_the_thread_and_fails_open_requests(
    stepped: tuple[AsyncEngine, SteppedFake],
) -> None:
    engine, executor = stepped
    task = asyncio.create_task(collect(engine.generate(EngineRequest("a", [1], ENDLESS))))
    await until(lambda: engine.stats().running == 1)
    closing = asyncio.create_task(asyncio.to_thread(engine.close))
    await until(lambda: not engine.is_alive)
    executor.allowed.release()
    await closing
    with pytest.raises(EngineDeadError, match="closed"):
        await task
    assert executor.is_closed
    assert "moss-engine" not in {thread.name for thread in threading.enumerate()}
    engine.close()


@pytest.mark.parametrize("end", ["close", "lose a rank"])
async def test_a_reply_that_was_complete_before_the_end_is_delivered(end: str) -> None:
    """The engine dies while the last step is computed."""
    executor = SteppedFake()
    engine = AsyncEngine(fake_engine(executor))
    last = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    task = asyncio.create_task(collect(engine.generate(EngineRequest("a", [1], last))))
    await until(lambda: engine.stats().running == 1)
    if end == "close":
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await until(lambda: not engine.is_alive)
    else:
        assert executor.on_death is not None
        executor.on_death("rank 1 ended")
    executor.allowed.release()
    assert await task == expected_reply([1], 1, frozenset(), 32)
    assert engine.stats().output_tokens == 1
    if end == "close":
        await closing
    engine.close()


async def test_an_idle_engine_uses_no_cpu(free_running: AsyncEngine) -> None:
    await collect(free_running.generate(EngineRequest("a", [1], PARAMS)))
    steps, before = free_running.stats().steps, time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - before < 0.1
    assert free_running.stats().steps == steps


def test_a_request_whose_loop_is_closed_is_aborted() -> None:
    executor = SteppedFake()
    engine = AsyncEngine(fake_engine(executor))
    loop = asyncio.new_event_loop()
    stream = engine.generate(EngineRequest("a", [1, 2], ENDLESS))
    executor.allowed.release()
    loop.run_until_complete(anext(stream))
    loop.close()
    executor.allowed.release(3)
    deadline = time.monotonic() + 5
    while engine.stats().free_blocks < 32 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.stats().free_blocks == 32
    assert engine.stats().steps <= 3
    engine.close()
