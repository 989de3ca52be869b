"""The sending end of a connection: writes together what is sent within one turn of the loop."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from cluster.channel.inlet import ChannelLostError
from cluster.channel.keepalive import set_user_timeout
from cluster.channel.wire import BEAT_S, BEAT_STREAM, pack

# Of a listener that stands still: what it has not read of some hundred replies is far less.
MAX_WAITING_BYTES = 64 << 20


class Connection(asyncio.Protocol):
    """Says `introduction` first. It beats while `is_well`, and so is heard while it has nothing to
    say."""

    def __init__(self, introduction: bytes, is_well: Callable[[], bool]) -> None:
        self._parts = [introduction]
        self._is_well = is_well
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_flushing = False
        self.is_lost = False

    def send(self, stream: int, payload: object) -> None:
        """To a lost connection it sends nothing."""
        if self.is_lost:
            return
        self._parts.append(pack([stream, payload]))
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self.flush)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Raises ChannelLostError from wherever the block waits, when the connection is lost."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.is_lost:
                raise ChannelLostError("nobody listens any more")
            yield
        except asyncio.CancelledError:
            if self.is_lost and task.uncancel() == 0:
                raise ChannelLostError("nobody listens any more") from None
            raise
        finally:
            self._tasks.discard(task)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        set_user_timeout(transport)
        self.flush()
        self._beating = self._loop.call_later(BEAT_S, self._beat)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._beating.cancel()
        for task in self._tasks:
            task.cancel()

    def flush(self) -> None:
        """What was sent is with the operating system, whatever becomes of this process."""
        self._is_flushing = False
        parts, self._parts = self._parts, []
        if not self.is_lost:
            self._transport.write(b"".join(parts))
            if self._transport.get_write_buffer_size() > MAX_WAITING_BYTES:
                self._transport.abort()

    def _beat(self) -> None:
        if self._is_well():
            self.send(BEAT_STREAM, None)
        self._beating = self._loop.call_later(BEAT_S, self._beat)
