"""One Ray Serve deployment a plugin, so that a slow or broken one shares no process with others.

It uses Serve and the registry. Which plugins a chat may use, and how long they may take, is up to
the caller. An exception of a back end travels to the caller, who turns it into no result.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ray import serve
from ray.serve import Application

from plugins_svc.registry import create_plugin
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.spec import PluginSettings

NOTE_S = 1.0  # for a plugin to be ready


class Observer(Protocol):
    """Looks on in a plugin's process, to which it is sent."""

    def prepare(self) -> None:
        """Called before the plugin is made."""
        ...

    def call(self, name: str, traceparent: str) -> AbstractContextManager[object]:
        """Entered around each call of the plugin."""
        ...


class PluginReplica:
    """A replica: one plugin instance, created with the replica and closed with it."""

    def __init__(
        self, name: str, settings: PluginSettings, observer: Observer | None = None
    ) -> None:
        self._name = name
        self._observer = observer
        if observer is not None:
            observer.prepare()
        self._plugin = create_plugin(name, settings)

    async def run(self, argument: str, traceparent: str = "") -> PluginOutput:
        """Answer one call, which belongs to the trace of `traceparent`."""
        if self._observer is None:
            return await self._plugin.run(argument)
        with self._observer.call(self._name, traceparent):
            return await self._plugin.run(argument)

    async def note(self) -> str | None:
        """A line on what it answers from, maybe empty; None while it is not ready."""
        try:
            async with asyncio.timeout(NOTE_S):
                return await self._plugin.ready()
        except TimeoutError:
            return None

    async def check_health(self) -> None:
        """Serve's health check. It runs on the event loop that answers calls."""
        await self._plugin.check()

    def __del__(self) -> None:
        """Serve calls it when the replica ends, once its requests are answered."""
        if hasattr(self, "_plugin"):
            self._plugin.close()


def plugin_deployment(
    name: str,
    settings: PluginSettings,
    options: Mapping[str, Any],
    observer: Observer | None = None,
) -> Application:
    """The bound deployment of the named plugin, called `plugin_<name>`.

    `options` are Serve's deployment options. The replica claims no CPU: a plugin must not keep a
    model's placement group waiting.
    """
    deployment = serve.deployment(
        name=f"plugin_{name}", ray_actor_options={"num_cpus": 0}, **options
    )(PluginReplica)
    return deployment.bind(name, settings, observer)
