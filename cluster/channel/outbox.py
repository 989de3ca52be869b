"""Sends messages to the listeners of other processes, over one connection each."""

import asyncio
from collections.abc import Callable

from cluster.channel.address import Address
from cluster.channel.connection import Connection
from cluster.channel.inlet import ChannelLostError
from cluster.channel.wire import Peer, introduction

CONNECT_S = 3.0


class Outbox:
    """Of a process that introduces itself as `peer` and beats while `is_well`."""

    def __init__(self, peer: Peer, is_well: Callable[[], bool]) -> None:
        self._peer = peer
        self._is_well = is_well
        self._connections: dict[Address, Connection] = {}
        self._connecting: dict[Address, asyncio.Lock] = {}

    async def connect(self, address: Address) -> Connection:
        """The connection to a listener. Raises ChannelLostError if there is none in CONNECT_S."""
        async with self._connecting.setdefault(address, asyncio.Lock()):
            connection = self._connections.get(address)
            if connection is None or connection.is_lost:
                self._forget_lost()
                connection = self._connections[address] = await self._open(address)
        return connection

    async def _open(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        words = introduction(address.token, self._peer)
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(words, self._is_well), address.host, address.port
                )
        except OSError as error:  # TimeoutError is one
            where = f"{address.host}:{address.port}"
            raise ChannelLostError(f"nobody listens at {where}: {error}") from error
        return connection

    def _forget_lost(self) -> None:
        """Of ingresses that are gone; new ones have new addresses."""
        for address in [a for a, connection in self._connections.items() if connection.is_lost]:
            del self._connections[address]
            self._connecting.pop(address, None)
