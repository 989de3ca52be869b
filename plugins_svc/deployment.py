"""One Ray Serve deployment a plugin: a slow or broken plugin shares no process with another.

Knows Serve and the registry; which plugins a chat may use and how long they may take is the
caller's business. Errors of a back end travel to the caller, who turns them into no result.
"""

from ray import serve
from ray.serve import Application

from plugins_svc.registry import PluginSettings, create_plugin
from plugins_svc.sdk.output import PluginOutput

# Callers bound their turns; this only keeps Serve's own polled queue out of the way.
MAX_ONGOING_REQUESTS = 256


class PluginReplica:
    """A replica: one plugin instance, created when the replica starts."""

    def __init__(self, name: str, settings: PluginSettings) -> None:
        self._plugin = create_plugin(name, settings)

    async def run(self, argument: str) -> PluginOutput:
        """Answer one call."""
        return await self._plugin.run(argument)


def plugin_deployment(name: str, settings: PluginSettings | None = None) -> Application:
    """The bound deployment of the named plugin, called `plugin_<name>`.

    It claims no CPU: a plugin must never keep a model's placement group waiting.
    """
    deployment = serve.deployment(
        name=f"plugin_{name}",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.2,
    )(PluginReplica)
    return deployment.bind(name, settings or PluginSettings())
