"""`moss serve` without our router, heartbeats and metrics: what they cost is the difference.

Run it as `python -m tests.proof.cost.plain` in place of `moss`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle

import serve_app.app
from cluster.channel import connection
from cluster.channel.listener import Listener
from plugins_svc.deployment import PluginReplica
from serve_app.cli.main import main
from serve_app.deployments import ingress
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.model import MossServer
from serve_app.observe.metrics import ServerMetrics
from serve_app.remote import attempt
from serve_app.settings import ServeSettings
from serve_app.watch import unwatched

NEVER_S = 1e6


class PlainServer(MossServer):
    """A replica that does not beat, and publishes nothing."""

    def __init__(self, settings: ServeSettings) -> None:
        parts: Any = connection
        parts.BEAT_S = NEVER_S
        super().__init__(settings)

    async def check_health(self) -> None:
        self._check()


class PlainMetrics(ServerMetrics):
    """Those of an ingress that counts nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.watch = unwatched

    def open(self) -> None:
        """It publishes nothing."""


class PlainIngress(Ingress):
    """An ingress that hears no heartbeats."""

    async def __init__(  # type: ignore[misc]  # Serve makes it so
        self,
        settings: ServeSettings,
        model: DeploymentHandle[MossServer],
        plugins: Mapping[str, DeploymentHandle[PluginReplica]],
    ) -> None:
        parts: Any = ingress
        parts.Listener = partial(Listener, silence_s=NEVER_S)
        parts.ServerMetrics = PlainMetrics
        parts = attempt
        parts.SILENCE_S = NEVER_S
        parent: Any = super()
        await parent.__init__(settings, model, plugins)


def plant() -> None:
    """Puts them where `build_app` finds them."""
    parts: Any = serve_app.app
    parts.MossServer, parts.Ingress = PlainServer, PlainIngress
    parts.router_config = RequestRouterConfig


if __name__ == "__main__":
    from tests.proof.cost.plain import plant as plant_importable

    plant_importable()  # of the module that Ray's processes find by its name
    main()
