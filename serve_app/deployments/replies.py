"""The way of a replica's deltas to the ingresses that asked for them: not through Ray, which takes
as long for a message as a GPU for several tokens."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import ray
from ray import serve

from cluster.channel.address import Target
from cluster.channel.connection import Connection
from cluster.channel.inlet import ChannelLostError
from cluster.channel.outbox import Outbox
from cluster.channel.wire import Peer
from cluster.routing.residency import ServedKeys
from cluster.routing.route import Route
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError
from serve_app.deployments.coalescer import Coalescer, SharedWay
from serve_app.deployments.gate import SuspectGate
from serve_app.deployments.make_up import make_up_digest
from serve_app.remote.packed import BEGUN, FAILED, TAKEN, pack


class Replies:
    """Of a replica that makes them as `make_up` says, and can while `is_well`."""

    def __init__(self, make_up: Mapping[str, Any], is_well: Callable[[], bool]) -> None:
        self._peer = Peer(_replica_id(), make_up_digest(make_up))
        self._outbox = Outbox(self._peer, is_well)
        self._gate = SuspectGate()
        self._way = SharedWay()
        self.served = ServedKeys(self._peer.make_up)

    async def send(
        self,
        deltas: AsyncGenerator[TokenDelta],
        request: EngineRequest,
        target: Target,
        route: Route,
    ) -> None:
        """Returns when all `deltas`, the reply to `request`, are on their way.

        Raises what they raise, and EngineDeadError if their reader is gone, or if the reply was
        begun by a replica of another make-up.
        """
        async with aclosing(deltas):
            if route.make_up not in ("", self._peer.make_up):
                raise EngineDeadError("this replica would go on to another reply")
            try:
                connection = await self._outbox.connect(target.address)
                with connection.guarding():
                    await self._send(deltas, connection, target.stream, request, route)
            except ChannelLostError as error:
                raise EngineDeadError(str(error)) from error

    async def _send(
        self,
        deltas: AsyncGenerator[TokenDelta],
        connection: Connection,
        stream: int,
        request: EngineRequest,
        route: Route,
    ) -> None:
        connection.send(stream, TAKEN)
        self.served.note(route.key)
        coalescer = Coalescer(
            lambda delta: connection.send(stream, pack(delta)),
            lambda: self._way.interval_s(request.delta_interval_s),
        )
        async with self._gate.turn(route.age_s) as turn:
            connection.send(stream, BEGUN)
            connection.flush()  # whatever the engine does with it, this is known
            try:
                with self._way.stream():
                    async for delta in deltas:
                        turn.end()
                        coalescer.add(delta)
            except Exception:
                coalescer.flush()
                connection.send(stream, FAILED)
                raise
            finally:
                coalescer.flush()


def _replica_id() -> str:
    """The full unique id of this replica; "" outside of Serve."""
    if not ray.is_initialized():
        return ""
    return str(serve.get_replica_context().replica_id.unique_id)
