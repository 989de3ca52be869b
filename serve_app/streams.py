"""Waiting on async iterators: for the next item or a timer, or for several iterators at once.

Each iterator is read by a task of its own, one item ahead, so a wait that times out loses
nothing. The items can be anything.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    """An iterator ended, or failed with `error`."""

    error: BaseException | None = None


async def with_timeouts(
    items: AsyncIterator[T], timeout_s: Callable[[], float | None]
) -> AsyncGenerator[T | None]:
    """`items`, and None each time the next one takes longer than `timeout_s()` seconds.

    `timeout_s` is called before each wait; None waits forever. Closing it closes `items`.
    """
    async with _reading(items) as queue:
        with closing(_Alarm(queue)) as alarm:
            while True:
                if queue.empty():
                    alarm.set(timeout_s())
                item = await queue.get()
                alarm.set(None)
                if isinstance(item, _End):
                    if item.error is not None:
                        raise item.error
                    return
                yield item


class _Alarm:
    """Puts None into an empty queue when a time-out is over.

    A timer that is set and cancelled for each item would cost more than the item. So the timer
    stays, and looks when it fires what is due by then.
    """

    def __init__(self, queue: "asyncio.Queue[Any]") -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._due = inf
        self._timer: asyncio.Handle | None = None
        self._rings_at = inf

    def set(self, timeout_s: float | None) -> None:
        """None: it is off."""
        self._due = inf if timeout_s is None else self._loop.time() + timeout_s
        if self._due < inf:
            self._set_timer()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer is not None:
            if self._rings_at <= self._due:
                return
            self._timer.cancel()
        self._rings_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._loop.time() >= self._due:
            self._due = inf
            with suppress(asyncio.QueueFull):  # an item has just come
                self._queue.put_nowait(None)
        elif self._due < inf:
            self._set_timer()


async def merge(*streams: AsyncIterator[T]) -> AsyncGenerator[T]:
    """The items of all `streams`, as they come. The first error ends it; closing closes all."""
    async with _reading(*streams) as queue:
        num_running = len(streams)
        while num_running:
            item = await queue.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                num_running -= 1


def is_being_cancelled() -> bool:
    """Whether the current task was cancelled, so that a CancelledError in it is its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def _reading(*streams: AsyncIterator[T]) -> AsyncIterator["asyncio.Queue[T | _End]"]:
    """A queue that is filled from `streams` until the end of the block, which closes them."""
    queue: asyncio.Queue[T | _End] = asyncio.Queue(maxsize=1)
    async with AsyncExitStack() as closing:  # closes all, even if one fails to close
        for stream in streams:
            if isinstance(stream, AsyncGenerator):
                closing.push_async_callback(stream.aclose)
        readers = [asyncio.create_task(_read(stream, queue)) for stream in streams]
        try:
            yield queue
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def _read(stream: AsyncIterator[T], queue: "asyncio.Queue[T | _End]") -> None:
    try:
        async for item in stream:
            await queue.put(item)
    except (Exception, asyncio.CancelledError) as error:
        if is_being_cancelled():
            raise
        await queue.put(_End(error))
    else:
        await queue.put(_End())
