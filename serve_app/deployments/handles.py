"""Model and plugins behind Serve's deployment handles.

Ray wraps the errors of a remote side; here they are unwrapped, so callers see the original ones.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from typing import Any, cast

from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from cluster.errors import unwrapped
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError, QueueFullError
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.circuit_breaker import PluginUnreachableError
from serve_app.chat.calling.plugin_client import PluginsByName, RunPlugin
from serve_app.deployments.packed import unpack
from serve_app.request_context import current_traceparent
from serve_app.streams import is_being_cancelled

# A replica answers in milliseconds; so people learn soon that a stopped one does not.
HEALTH_TIMEOUT_S = 4
MAKE_UP_TIMEOUT_S = 1
STRAGGLER_S = 0.5
# A replica that is up takes a call in milliseconds, however long it then takes to answer.
TAKE_S = 4.0


class RemoteModel:
    """A ChatModel, HealthProbe and MakeUp over the handle of MossServer."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._made_up: Mapping[str, Any] = {}

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncGenerator[TokenDelta]:
        """See `ChatModel.generate`.

        If a replica dies before its first delta, the request is sent once more, to another one.
        """
        for may_retry in (True, False):
            has_begun = False
            try:
                async with aclosing(self._stream(request, session_id)) as deltas:
                    async for delta in deltas:
                        has_begun = True
                        yield delta
                return
            except EngineDeadError:
                if has_begun or not may_retry:
                    raise

    async def groups(self) -> tuple[bool, ...]:
        """Whether each replica that is up can serve: all its ranks live, and no step hangs."""
        with suppress(EngineDeadError, RayError, RayServeException, TimeoutError):
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return await self._groups()
        return ()

    async def is_ready(self) -> bool:
        """Whether some replica can serve: one that responds has loaded its model."""
        return any(await self.groups())

    async def stats(self) -> dict[str, Any]:
        """The stats of one replica. Raises EngineDeadError if none responds in time."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                stats: dict[str, Any] = await self._call("stats")
        except (RayError, RayServeException, TimeoutError) as error:
            raise EngineDeadError("no replica of the model answers") from error
        return stats

    async def make_up(self) -> Mapping[str, Any]:
        """What makes the replies of the replicas, which are all alike; asked once. Empty while no
        replica says it, which costs no turn."""
        if not self._made_up:
            with suppress(EngineDeadError, RayError, RayServeException, TimeoutError):
                async with asyncio.timeout(MAKE_UP_TIMEOUT_S):
                    self._made_up = dict(await self._call("make_up"))
        return self._made_up

    async def _stream(self, request: EngineRequest, session_id: str) -> AsyncGenerator[TokenDelta]:
        """The deltas of one replica; its errors are unwrapped."""
        handle = self._handle.options(stream=True, session_id=session_id)
        deltas = cast(
            DeploymentResponseGenerator[bytes],
            handle.generate.remote(request),
        )
        has_ended = False
        try:
            with _cancelled_remotely(EngineDeadError("a replica cancelled the request")):
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

    async def _groups(self) -> tuple[bool, ...]:
        """Waits for one that is stuck only if no other can serve."""
        broadcast: Any = self._handle.broadcast("check_health")
        with _cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            # Private; the public method returns nothing before the slowest has answered.
            answers = await broadcast._fetch_replica_results_async()
        checks = [asyncio.create_task(_has_succeeded(answer)) for answer in answers]
        try:
            for patience_s in (STRAGGLER_S, HEALTH_TIMEOUT_S - 2 * STRAGGLER_S):
                done, _ = await asyncio.wait(checks, timeout=patience_s)
                if any(check.result() for check in done):
                    break
            return tuple(check.done() and check.result() for check in checks)
        finally:
            for check in checks:
                check.cancel()

    async def _call(self, method: str) -> Any:
        with _cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            return await getattr(self._handle, method).remote()


async def _has_succeeded(answer: Any) -> bool:
    """Whether the call behind one result of a broadcast raised nothing."""
    try:
        with _cancelled_remotely(EngineDeadError("a replica cancelled the call")):
            await answer.get_async()
    except Exception:
        return False
    return True


@contextmanager
def _cancelled_remotely(error: Exception) -> Iterator[None]:
    """Raises `error` if the remote side was cancelled, which Serve reports as CancelledError."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        if is_being_cancelled():
            raise
        raise error from cancelled


def remote_plugins(handles: Mapping[str, DeploymentHandle[Any]]) -> PluginsByName:
    """A PluginClient over one handle per plugin name."""
    return PluginsByName({name: _remote_plugin(name, handle) for name, handle in handles.items()})


def _remote_plugin(name: str, handle: DeploymentHandle[Any]) -> RunPlugin:
    async def run(argument: str) -> PluginOutput:
        unreachable = PluginUnreachableError(f"no replica of plugin {name!r} answers")
        traced = [traceparent] if (traceparent := current_traceparent()) else []
        response = handle.run.remote(argument, *traced)
        try:
            with _cancelled_remotely(unreachable):
                await _taken(response, unreachable)
                output: PluginOutput = await response
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]  # else the call goes on
            raise
        except (RayActorError, RayServeException) as error:
            raise unreachable from error
        return output

    return run


async def _taken(response: Any, unreachable: Exception) -> None:
    """Returns when a replica has taken the call. Raises `unreachable` if none does in TAKE_S."""
    try:
        async with asyncio.timeout(TAKE_S):
            await response._fetch_future_result_async()  # private
    except TimeoutError:
        response.cancel()
        raise unreachable from None
