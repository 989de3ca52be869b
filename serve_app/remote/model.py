"""The model behind Serve's deployment handle.

Ray wraps the errors of a remote side; here they are unwrapped, so callers see the original ones.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from cluster.errors import unwrapped
from cluster.routing.route import Route
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError, QueueFullError
from serve_app.remote.cancelled import cancelled_remotely
from serve_app.remote.packed import unpack


class RemoteModel:
    """A ChatModel over the handle of MossServer."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncGenerator[TokenDelta]:
        """See `ChatModel.generate`.

        If a replica dies before its first delta, the request is sent once more, to another one.
        """
        route = Route(session_id)
        for may_retry in (True, False):
            has_begun = False
            try:
                async with aclosing(self._stream(request, route)) as deltas:
                    async for delta in deltas:
                        has_begun = True
                        yield delta
                return
            except EngineDeadError:
                if has_begun or not may_retry:
                    raise

    async def _stream(self, request: EngineRequest, route: Route) -> AsyncGenerator[TokenDelta]:
        """The deltas of one replica; its errors are unwrapped."""
        handle = self._handle.options(stream=True)
        deltas = cast(
            DeploymentResponseGenerator[bytes],
            handle.generate.remote(request, route=route),
        )
        has_ended = False
        try:
            with cancelled_remotely(EngineDeadError("a replica cancelled the request")):
                async for packed in deltas:
                    yield unpack(packed)
            has_ended = True
        except BackPressureError as error:
            raise QueueFullError("the model has no room for another request") from error
        except RayError as error:
            if (own := unwrapped(error)) is error:
                raise  # from itself, it would be the cause of itself
            raise own from error
        except RayServeException as error:
            raise EngineDeadError("no replica of the model is up") from error
        finally:
            # Dropping the generator would not cancel the remote call, if it still runs.
            if not has_ended:
                deltas.cancel()  # type: ignore[no-untyped-call]
