"""Receives the messages of all streams of one process, over one connection a sender.

A sender that dies is noticed at once, since its end closes the connection, and one that stands
still by its silence.
"""

import asyncio
import secrets
from itertools import count
from typing import Any, cast

import msgpack

from cluster.channel.address import Address, Target
from cluster.channel.inlet import ChannelLostError, Inlet
from cluster.channel.keepalive import set_user_timeout
from cluster.channel.wire import BEAT_STREAM, Peer, WireError, introduced, unpacker

SILENCE_S = 3.0
WATCH_S = 0.25
INTRODUCE_S = 5.0
MAX_STRANGER_BYTES = 4096  # an introduction takes a hundred or two


class Listener:
    """Listens on `host` once it is opened. One sender's silence of `silence_s` is its end."""

    def __init__(self, host: str = "127.0.0.1", silence_s: float = SILENCE_S) -> None:
        self._host = host
        self._silence_s = silence_s
        self._streams = count(BEAT_STREAM + 1)
        self._inlets: dict[int, Inlet] = {}
        self._connections: set[_Connection] = set()
        self._address: Address | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Idempotent. Raises OSError if there is no such address."""
        async with self._opening:
            if self._address is None:
                await self._open()

    def inlet(self) -> Inlet:
        """A new stream of it, which is open."""
        if self._address is None:
            raise RuntimeError("the listener is not open")
        stream = next(self._streams)
        inlet = Inlet(Target(self._address, stream), self._forget)
        self._inlets[stream] = inlet
        return inlet

    async def close(self) -> None:
        if self._address is not None:
            self._watching.cancel()
            self._server.close()
            for connection in tuple(self._connections):
                connection.end("the listener is closed")

    def receive(self, connection: "_Connection", stream: int, payload: Any) -> None:
        """Called by its connections."""
        inlet = self._inlets.get(stream)
        if inlet is not None:
            if inlet.peer is None:
                inlet.peer = connection.peer
                connection.streams.add(stream)
            inlet.put(payload)

    def enter(self, connection: "_Connection") -> None:
        """Called by a connection that was introduced."""
        self._connections.add(connection)

    def leave(self, connection: "_Connection", reason: str) -> None:
        """Called by a connection that has ended: so have its streams."""
        self._connections.discard(connection)
        for stream in connection.streams & self._inlets.keys():
            self._inlets[stream].fail(ChannelLostError(reason))
        connection.streams.clear()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        token = secrets.token_bytes(32)
        self._server = await loop.create_server(lambda: _Connection(self, token), self._host, 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self._address = Address(host, port, token)
        self._watching = asyncio.create_task(self._watch())

    def _forget(self, stream: int) -> None:
        self._inlets.pop(stream, None)
        for connection in self._connections:
            connection.streams.discard(stream)

    async def _watch(self) -> None:
        """Ends silent connections. After a pause of this process itself, it listens again first."""
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await asyncio.sleep(WATCH_S)
            now = loop.time()
            if now - looked_at < 2 * WATCH_S:
                for connection in tuple(self._connections):
                    if now - connection.heard_at > self._silence_s:
                        connection.end(f"silent for {now - connection.heard_at:.1f} s")
            looked_at = now


class _Connection(asyncio.Protocol):
    """From one sender."""

    def __init__(self, listener: Listener, token: bytes) -> None:
        self._listener = listener
        self._token = token
        self._unpacker = unpacker()
        self._reason = "the connection has ended"
        self._num_bytes = 0
        self.peer: Peer | None = None
        self.streams: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        set_user_timeout(self._transport)
        self._introduce = self._loop.call_later(INTRODUCE_S, self._transport.abort)
        self.heard_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self._num_bytes += len(data)
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                self._take(message)
            if self.peer is None and self._num_bytes > MAX_STRANGER_BYTES:
                raise WireError("no introduction")
        except (WireError, ValueError, msgpack.UnpackException, msgpack.BufferFull) as error:
            self.end(f"{type(error).__name__}: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._introduce.cancel()
        self._listener.leave(self, self._reason)

    def end(self, reason: str) -> None:
        """Its streams have ended at once, whenever the transport closes."""
        self._reason = reason
        self._transport.abort()
        self._listener.leave(self, reason)

    def _take(self, message: Any) -> None:
        if self.peer is None:
            self.peer = introduced(message, self._token)
            self._introduce.cancel()
            self._listener.enter(self)
            return
        stream, payload = message
        if stream != BEAT_STREAM:
            self._listener.receive(self, stream, payload)
