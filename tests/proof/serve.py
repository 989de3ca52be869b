"""`moss serve` with a digest for a model and with plugins that write their calls down.

Everything else is the real server. Run it as `python -m tests.proof.serve` in place of `moss`; the
file of calls and the pace come from the environment. So may the model: `engine` is the real one,
whose plugins are slow.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

import plugins_svc.registry
import serve_app.app
from cluster.channel.address import Target
from cluster.routing.route import ANYWHERE, Route
from cluster.scaling.policy import TURN_TOKENS, Load
from moss_tp.engine.request import EngineRequest
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.spec import PluginSettings
from serve_app.cli.main import main
from serve_app.deployments import options as serve_options
from serve_app.deployments.replies import Replies
from serve_app.groups import GroupState
from serve_app.settings import ServeSettings
from tests.proof.digest import DigestModel
from tests.proof.long.watched import WatchedServer, run_slowly
from tests.proof.plugins import NAMES, run_logged
from tests.proof.rolling.redeploy import UPDATES, follow_updates

CALLS, PAUSE_S, NUM_WORDS = "PROOF_CALLS", "PROOF_PAUSE_S", "PROOF_NUM_WORDS"
MODEL = "PROOF_MODEL"
# Seconds until Serve replaces a process that answers nothing, so that one that stands still for
# less goes on.
PATIENCE_S = "PROOF_PATIENCE_S"
ROUTER = "PROOF_ROUTER"  # `serve`: Serve's own, which knows no chats
# Requests that fill a replica.
NUM_SLOTS = "PROOF_NUM_SLOTS"


class DigestServer:
    """A replica of the model: the methods of MossServer."""

    def __init__(self, settings: ServeSettings) -> None:
        pause_s, num_words = os.environ[PAUSE_S], os.environ[NUM_WORDS]
        self._model = DigestModel(float(pause_s), int(num_words))
        self._num_running = 0
        # A rolling update renames the model: those are other weights.
        self._make_up = {"weights": f"digest of {settings.model_names[0]}"}
        self._replies = Replies(self._make_up, lambda: True)

    async def generate(
        self, request: EngineRequest, *, target: Target, route: Route = ANYWHERE
    ) -> None:
        self._num_running += 1
        try:
            await self._replies.send(self._model.generate(request), request, target, route)
        finally:
            self._num_running -= 1

    def record_routing_stats(self) -> dict[str, Any]:
        return self._replies.served.stats()

    async def check_health(self) -> None:
        """It is always well."""

    async def state(self) -> GroupState:
        return GroupState("serving", serve.get_replica_context().replica_id.unique_id, 1)

    async def make_up(self) -> dict[str, Any]:
        return self._make_up

    async def stats(self) -> dict[str, Any]:
        name = serve.get_replica_context().replica_id.unique_id
        return {"replica": name, "running": self._num_running, "waiting": 0}

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Each request is an ordinary one, and holds a block of a thousand."""
        num_slots = int(os.environ.get(NUM_SLOTS, "64"))
        num, tokens = self._num_running, self._num_running * TURN_TOKENS
        load = Load(num, 0, tokens, num, 1000, num_slots)
        return asdict(load)


class LoggedPlugin:
    """A replica of a plugin: the methods of PluginReplica."""

    def __init__(self, name: str) -> None:
        self._name, self._log = name, Path(os.environ[CALLS])

    async def run(self, argument: str, *traced: Any) -> PluginOutput:
        if os.environ.get(MODEL) == "engine":
            return await run_slowly(self._log, argument)
        return await run_logged(self._log, self._name, argument)

    async def note(self) -> str:
        return ""

    async def check_health(self) -> None:
        """It is always well."""


def _plugin(
    name: str, settings: PluginSettings, options: Mapping[str, Any], observer: Any = None
) -> Application:
    deployment = serve.deployment(
        name=f"plugin_{name}", ray_actor_options={"num_cpus": 0}, **options
    )(LoggedPlugin)
    return deployment.bind(name)


def plant() -> None:
    """Puts the doubles where `build_app` finds them."""
    parts: Any = serve_app.app
    is_real = os.environ.get(MODEL) == "engine"
    parts.MossServer = WatchedServer if is_real else DigestServer
    parts.plugin_deployment = _plugin
    if os.environ.get(ROUTER) == "serve":
        parts.router_config = RequestRouterConfig
    if UPDATES in os.environ:
        parts.build_app = follow_updates(parts.build_app)
    if PATIENCE_S in os.environ:
        serve_options.HEALTH_CHECK_TIMEOUT_S = int(os.environ[PATIENCE_S])
    specs = (s for s in plugins_svc.registry.SPECS if s.name in NAMES)
    plugins_svc.registry.SPECS = tuple(replace(s, create=_no_plugin) for s in specs)


def _no_plugin(settings: PluginSettings) -> Any:
    raise AssertionError("the plugins are deployed otherwise")


if __name__ == "__main__":
    plant()
    main()
