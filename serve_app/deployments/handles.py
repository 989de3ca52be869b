"""The collaborators of a turn, reached through Serve's deployment handles.

What a remote side raised arrives here wrapped by Ray and leaves as itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, cast

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from cluster.errors import unwrapped
from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import EngineDeadError, QueueFullError
from moss_tp.sampling_params import SamplingParams
from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.errors import PluginError, UnknownPluginError
from plugins_svc.sdk.output import PluginOutput

HEALTH_TIMEOUT_S = 5


class RemoteModel:
    """`ChatModel`, `HealthProbe` and `/stats` over the handle of MossServer."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def generate(
        self, request_id: str, prompt_ids: Sequence[int], params: SamplingParams, session_id: str
    ) -> AsyncGenerator[TokenDelta]:
        """See `ChatModel.generate`.

        A replica that dies before its first delta has told nothing: another starts over, once.
        """
        for may_start_over in (True, False):
            has_begun = False
            try:
                async with aclosing(
                    self._stream(request_id, prompt_ids, params, session_id)
                ) as deltas:
                    async for delta in deltas:
                        has_begun = True
                        yield delta
                return
            except EngineDeadError:
                if has_begun or not may_start_over:
                    raise

    async def is_healthy(self) -> bool:
        """False when any rank is dead, a step is stuck, or nobody answers."""
        with suppress(RayError, RayServeException, TimeoutError):
            await asyncio.wait_for(self._ask("check_health"), HEALTH_TIMEOUT_S)
            return True
        return False

    async def is_ready(self) -> bool:
        """A replica that is there has loaded its model."""
        return await self.is_healthy()

    async def stats(self) -> dict[str, Any]:
        """Of one replica; EngineDeadError when none answers in time."""
        try:
            stats: dict[str, Any] = await asyncio.wait_for(self._ask("stats"), HEALTH_TIMEOUT_S)
        except (RayError, RayServeException, TimeoutError) as error:
            raise EngineDeadError("no replica of the model answers") from error
        return stats

    async def _stream(
        self, request_id: str, prompt_ids: Sequence[int], params: SamplingParams, session_id: str
    ) -> AsyncGenerator[TokenDelta]:
        """One replica's deltas, with its errors as themselves."""
        handle = self._handle.options(stream=True, session_id=session_id)
        deltas = cast(
            DeploymentResponseGenerator[TokenDelta],
            handle.generate.remote(request_id, list(prompt_ids), params),
        )
        try:
            async for delta in deltas:
                yield delta
        except BackPressureError as error:
            raise QueueFullError("the model has no room for another request") from error
        except RayError as error:
            raise unwrapped(error) from error
        except RayServeException as error:
            raise EngineDeadError("no replica of the model is up") from error
        finally:
            # Dropping the reference would not stop it.
            deltas.cancel()  # type: ignore[no-untyped-call]

    async def _ask(self, method: str) -> Any:
        return await getattr(self._handle, method).remote()


class RemotePlugins:
    """`PluginClient` over one handle a plugin."""

    def __init__(self, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._handles = handles

    async def run(self, call: Call) -> PluginOutput:
        """See `PluginClient.run`; PluginError when no replica of the plugin answers."""
        if call.plugin not in self._handles:
            raise UnknownPluginError(f"plugin {call.plugin!r} is not deployed")
        try:
            output: PluginOutput = await self._handles[call.plugin].run.remote(call.argument)
        except RayServeException as error:
            raise PluginError(f"no replica of plugin {call.plugin!r} is up") from error
        return output
