"""A request's way from the engine's thread back to the event loop of its reader."""

import asyncio
from collections.abc import Sequence

from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import MossError

Item = TokenDelta | MossError


class Stream:
    """Made on the reader's event loop, and read there."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Item] = asyncio.Queue()

    def put(self, item: Item) -> None:
        """On the loop's own thread; from another see `deliver`."""
        self._queue.put_nowait(item)

    async def get(self) -> TokenDelta:
        """The next delta; raises the error that came instead."""
        item = await self._queue.get()
        if isinstance(item, MossError):
            raise item
        return item


def deliver(items: Sequence[tuple[Stream, Item]]) -> list[Stream]:
    """Puts items, in order, from any thread; returns the streams whose loop is gone, where nobody
    listens. Each loop is woken once, since a wake-up costs more than what it brings.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Stream, Item]]] = {}
    for stream, item in items:
        by_loop.setdefault(stream.loop, []).append((stream, item))
    unheard: list[Stream] = []
    for loop, its_items in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, its_items)
        except RuntimeError:
            unheard.extend(stream for stream, _ in its_items)
    return unheard


def _put_all(items: Sequence[tuple[Stream, Item]]) -> None:
    for stream, item in items:
        stream.put(item)
