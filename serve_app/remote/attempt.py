"""One request at one replica: a call through Serve, and the deltas that come for it by a channel.

Ray wraps the errors of a remote side; here they are unwrapped, so callers see the original ones.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.channel.inlet import ChannelLostError, Inlet
from cluster.channel.listener import SILENCE_S, Listener
from cluster.channel.wire import Peer
from cluster.errors import unwrapped
from cluster.routing.assigned import assigned_replica
from cluster.routing.route import Route
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError, QueueFullError
from serve_app.remote.cancelled import cancelled_remotely
from serve_app.remote.packed import BEGUN, FAILED, TAKEN, unpack

TELL_S = 1.0  # for the last deltas of a call that has failed
LOOK_S = 0.5


class ReplicaLostError(EngineDeadError):
    """The replica has died, or is silent. `peer` is who had taken the request, if one had;
    `has_begun` says whether its engine had got it; `name` is that replica, or the one that was
    given the request, as far as it is known."""

    def __init__(
        self, message: str, peer: Peer | None, name: str = "", has_begun: bool = False
    ) -> None:
        super().__init__(message)
        self.peer = peer
        self.has_begun = has_begun
        self.name = peer.name if peer else name


async def attempt(
    handle: DeploymentHandle[Any], listener: Listener, request: EngineRequest, route: Route
) -> AsyncGenerator[TokenDelta]:
    """The deltas of `request`; closing it aborts the request.

    Raises what `AsyncEngine.generate` raises, and ReplicaLostError for its EngineDeadError.
    """
    inlet = listener.inlet()
    response = handle.generate.remote(request, target=inlet.target, route=route)
    call = asyncio.create_task(_outcome(response))
    watching = asyncio.create_task(_watch(call, inlet, request.request_id))
    has_begun = is_over = False
    try:
        while not is_over:
            packed = await inlet.get()
            if packed == FAILED:
                raise await call or EngineDeadError("the replica gave up the request")
            has_begun = has_begun or packed != TAKEN
            if packed not in (TAKEN, BEGUN):
                delta = unpack(packed)
                is_over = delta.finish_reason is not None
                yield delta
    except (ChannelLostError, EngineDeadError) as error:
        name = assigned_replica(request.request_id) or ""
        raise ReplicaLostError(str(error), inlet.peer, name, has_begun) from error
    finally:
        inlet.close()
        watching.cancel()
        # A call that has ended is not cancelled: that would be a message for each request.
        if not is_over:
            call.cancel()
            response.cancel()  # type: ignore[no-untyped-call]


async def _outcome(response: Any) -> Exception | None:
    """Why the call has failed; None when it has not."""
    try:
        with cancelled_remotely(EngineDeadError("a replica cancelled the request")):
            await response
    except BackPressureError:
        return QueueFullError("the model has no room for another request")
    except RayError as error:
        return unwrapped(error)
    except RayServeException as error:
        return EngineDeadError(f"no replica of the model is up: {error}")
    except EngineDeadError as error:
        return error
    return None


async def _watch(call: "asyncio.Task[Exception | None]", inlet: Inlet, request_id: str) -> None:
    """Fails the inlet when the call has failed, or when nobody takes it who was given it."""
    assigned_at = None
    while inlet.peer is None and not call.done():
        await asyncio.wait({call}, timeout=LOOK_S)
        if assigned_at is None and assigned_replica(request_id) is not None:
            assigned_at = time.monotonic()
        elif assigned_at is not None and time.monotonic() > assigned_at + SILENCE_S:
            inlet.fail(ChannelLostError("a replica does not take the request"))
            return
    error = await asyncio.shield(call)
    if error is not None:
        if inlet.peer is not None:
            await asyncio.sleep(TELL_S)
        inlet.fail(error)
