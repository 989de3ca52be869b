"""Plugins behind Serve's deployment handles."""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.circuit_breaker import PluginUnreachableError
from serve_app.chat.calling.plugin_client import PluginsByName, RunPlugin
from serve_app.remote.cancelled import cancelled_remotely
from serve_app.request_context import current_traceparent

# A replica that is up takes a call in milliseconds, however long it then takes to answer.
TAKE_S = 4.0


def remote_plugins(handles: Mapping[str, DeploymentHandle[Any]]) -> PluginsByName:
    """A PluginClient over one handle per plugin name."""
    return PluginsByName({name: _remote_plugin(name, handle) for name, handle in handles.items()})


def _remote_plugin(name: str, handle: DeploymentHandle[Any]) -> RunPlugin:
    async def run(argument: str) -> PluginOutput:
        unreachable = PluginUnreachableError(f"no replica of plugin {name!r} answers")
        traced = [traceparent] if (traceparent := current_traceparent()) else []
        response = handle.run.remote(argument, *traced)
        try:
            with cancelled_remotely(unreachable):
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
