"""Waiting on async iterators: for the next item or a timer, or for several iterators at once.

Each iterator is read by a task of its own, one item ahead, so a wait that times out loses
nothing. The items can be anything.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

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
        while True:
            try:
                async with asyncio.timeout(timeout_s()):
                    item = await queue.get()
            except TimeoutError:
                yield None
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item


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
