"""Carries a request's deltas from the engine's thread to the event loop of its reader."""

import asyncio
from collections.abc import Sequence

from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import MossError

Item = TokenDelta | MossError


class Stream:
    """Created and read on the reader's event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Item] = asyncio.Queue()

    def put(self, item: Item) -> None:
        """To be called on the loop's own thread; see `deliver` for other threads."""
        self._queue.put_nowait(item)

    async def get(self) -> TokenDelta:
        """The next delta. Raises an error that was put instead of one."""
        item = await self._queue.get()
        if isinstance(item, MossError):
            raise item
        return item


def deliver(items: Sequence[tuple[Stream, Item]]) -> list[Stream]:
    """Puts items, in order, from any thread. Returns the streams whose loop is closed.

    Each loop is woken once for all its items: a wake-up costs more than handling an item.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Stream, Item]]] = {}
    for stream, item in items:
        by_loop.setdefault(stream.loop, []).append((stream, item))
    undelivered: list[Stream] = []
    for loop, its_items in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, its_items)
        except RuntimeError:
            undelivered.extend(stream for stream, _ in its_items)
    return undelivered


def _put_all(items: Sequence[tuple[Stream, Item]]) -> None:
    for stream, item in items:
        stream.put(item)
