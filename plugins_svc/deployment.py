"""One Ray Serve deployment a plugin: a slow or broken plugin shares no process with another.

Knows Serve and the registry; which plugins a chat may use and how long they may take is the
caller's business. Errors of a back end travel to the caller, who turns them into no result.
"""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from plugins_svc.protocol.results import PluginOutput
from plugins_svc.registry import PluginSettings, create_plugin


class PluginReplica:
    """A replica: one plugin instance, created when the replica starts."""

    def __init__(self, name: str, settings: PluginSettings) -> None:
        self._plugin = create_plugin(name, settings)

    async def run(self, argument: str) -> PluginOutput:
        """Answer one call."""
        return await self._plugin.run(argument)


def plugin_deployment(
    name: str, settings: PluginSettings | None = None, options: Mapping[str, Any] | None = None
) -> Application:
    """The bound deployment of the named plugin, called `plugin_<name>`.

    It claims no CPU: a plugin must never keep a model's placement group waiting.
    """
    deployment = serve.deployment(
        name=f"plugin_{name}", ray_actor_options={"num_cpus": 0}, **(options or {})
    )(PluginReplica)
    return deployment.bind(name, settings or PluginSettings())
