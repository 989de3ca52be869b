"""The receiving end of one stream."""

import asyncio
from collections.abc import Callable
from typing import Any

from cluster.channel.address import Target
from cluster.channel.wire import Peer


class ChannelLostError(Exception):
    """The sender of a stream has died, or is silent."""


class Inlet:
    """Messages in their order, until it is closed; `peer` is known from the first one on.

    Whoever else learns that no more will come may `fail` it.
    """

    def __init__(self, target: Target, forget: Callable[[int], None]) -> None:
        self.target = target
        self.peer: Peer | None = None
        self._forget = forget
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    async def get(self) -> Any:
        """The next message. Raises ChannelLostError, or the error that it was failed with, once
        all messages before that have been read."""
        item = await self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def put(self, message: Any) -> None:
        self._queue.put_nowait(message)

    def fail(self, error: BaseException) -> None:
        self._queue.put_nowait(error)

    def close(self) -> None:
        """What comes later is dropped."""
        self._forget(self.target.stream)
