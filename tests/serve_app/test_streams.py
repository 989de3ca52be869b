"""Waiting for the next item or a timer loses no item, and leaves nothing running."""

import asyncio
from collections.abc import AsyncGenerator
from itertools import cycle
from typing import Any

import pytest
import uvloop

from serve_app.streams import merge, with_timeouts


class Source:
    """Numbers with a pause before each, then `error` if there is one; remembers being closed."""

    def __init__(self, *pauses_s: float, error: Exception | None = None, first: int = 0) -> None:
        self._pauses_s = pauses_s
        self._error = error
        self._first = first
        self.is_closed = False

    async def __call__(self) -> AsyncGenerator[int]:
        try:
            for number, pause_s in enumerate(self._pauses_s, self._first):
                await asyncio.sleep(pause_s)
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.is_closed = True


async def test_items_that_come_in_time_pass_unchanged() -> None:
    assert [item async for item in with_timeouts(Source(0, 0, 0)(), lambda: 5)] == [0, 1, 2]
    assert [item async for item in with_timeouts(Source(0, 0.01)(), lambda: None)] == [0, 1]


async def test_a_late_item_comes_after_the_timeouts_it_caused() -> None:
    items = [item async for item in with_timeouts(Source(0, 0.1)(), lambda: 0.03)]
    assert items[0] == 0 and items[-1] == 1
    assert len(items) > 3 and set(items[1:-1]) == {None}


async def test_a_time_out_may_become_shorter_or_longer_with_each_item() -> None:
    timeouts_s = iter([60, 0.02, None, 0.02, 60])
    items = [item async for item in with_timeouts(Source(0.01, 0.1)(), lambda: next(timeouts_s))]
    assert items == [0, None, 1]


async def test_no_timer_outlives_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def note(*args: Any, **context: Any) -> asyncio.TimerHandle:
        timers.append(call_at(*args, **context))
        return timers[-1]

    monkeypatch.setattr(loop, "call_at", note)
    assert [item async for item in with_timeouts(Source(0, 0, 0)(), lambda: 60)] == [0, 1, 2]
    assert timers and all(timer.cancelled() for timer in timers if timer.when() > loop.time() + 1)
    assert len([timer for timer in timers if timer.cancelled()]) == 1, "one for all items"


def test_time_outs_on_the_event_loop_that_serve_uses() -> None:
    """Its timers are others, and one that is due at once is none."""

    async def items() -> list[int | None]:
        timeouts_s = cycle([0.0001, -1, 0.01])
        stream = with_timeouts(Source(*[0, 0.0001] * 20, 0.1)(), lambda: next(timeouts_s))
        return [item async for item in stream]

    found = uvloop.run(items())
    assert [item for item in found if item is not None] == [*range(41)]
    assert None in found


async def test_a_timeout_of_zero_or_less_still_delivers_what_is_there() -> None:
    items = with_timeouts(Source(0, 0)(), lambda: -1)
    seen: list[int | None] = []
    async for item in items:
        seen.append(item)
    assert [item for item in seen if item is not None] == [0, 1]


@pytest.mark.parametrize("error", [ValueError("broken"), TimeoutError("its own")])
async def test_an_error_of_the_source_comes_through(error: Exception) -> None:
    source = Source(0, error=error)
    with pytest.raises(type(error), match=str(error)):
        async for _ in with_timeouts(source(), lambda: 5):
            pass
    assert source.is_closed


@pytest.mark.parametrize("is_merged", [False, True])
async def test_closing_closes_the_source(is_merged: bool) -> None:
    source = Source(0, 60)
    items = merge(source()) if is_merged else with_timeouts(source(), lambda: 5)
    assert await anext(items) == 0
    await items.aclose()
    assert source.is_closed


async def test_cancelling_the_reader_closes_the_source() -> None:
    source = Source(60)

    async def read() -> None:
        async for _ in with_timeouts(source(), lambda: None):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.is_closed


@pytest.mark.parametrize("is_merged", [False, True])
async def test_a_source_that_is_cancelled_ends_its_reader(is_merged: bool) -> None:
    async def cancelled() -> AsyncGenerator[int]:
        yield 0
        raise asyncio.CancelledError  # as Serve's handles do when a replica cancels its task

    items = merge(cancelled()) if is_merged else with_timeouts(cancelled(), lambda: None)
    assert await anext(items) == 0
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await anext(items)


async def test_a_source_that_fails_to_close_keeps_no_other_open() -> None:
    async def stubborn() -> AsyncGenerator[int]:
        try:
            while True:
                yield 0
        finally:
            raise ValueError("does not close")

    other = Source(*[0] * 9, first=1)
    items = merge(stubborn(), other())
    assert await anext(items) == 0
    await asyncio.sleep(0.01)  # both are an item ahead now
    with pytest.raises(ValueError, match="does not close"):
        await items.aclose()
    assert other.is_closed


async def test_a_source_that_fails_when_cancelled_does_not_block_closing() -> None:
    async def failing() -> AsyncGenerator[int]:
        yield 0
        yield 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            raise ValueError("cannot clean up") from error

    items = with_timeouts(failing(), lambda: None)
    assert await anext(items) == 0
    await asyncio.sleep(0.01)  # 1 fills the queue, and the source waits for its next item
    async with asyncio.timeout(5):
        await items.aclose()


async def test_merged_items_come_as_they_are_ready() -> None:
    slow, fast = Source(0.05, 0.05), Source(0, 0, 0, first=10)
    items = [item async for item in merge(slow(), fast())]
    assert items == [10, 11, 12, 0, 1]


async def test_an_error_of_one_stream_closes_all_merged() -> None:
    healthy, broken = Source(0, 60), Source(0, 0.02, error=ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        async for _ in merge(healthy(), broken()):
            pass
    assert healthy.is_closed and broken.is_closed
