"""The whole server as one Serve application; the only place that wires its parts together.

`moss serve` runs what `build_app` returns; `serve deploy` finds it by the import path
`serve_app.app:build_app`.
"""

import os
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from cluster.ranks.placement import STRATEGY, rank_bundle, rank_options
from cluster.ranks.room import check_room
from cluster.routing.config import router_config
from plugins_svc.deployment import plugin_deployment
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.model import MossServer
from serve_app.deployments.options import deployment_options, replica_options
from serve_app.deployments.replica_end import CUT_S
from serve_app.observe.plugins import PluginObserver
from serve_app.settings import ServeSettings

INGRESS_CPUS = 0.1


def build_app(settings: ServeSettings) -> Application:
    """Ingress, model and plugins, bound. Raises ConfigError for settings that cannot work, where a
    Ray runs also for a group that none of its nodes can hold.

    A key in the environment, MOSS_API_KEY, counts as one of the settings.
    """
    settings = settings.with_environment(os.environ)
    # Resolved once, so that all replicas agree.
    settings = settings.model_copy(update={"dialogue": settings.resolved_dialogue})
    if ray.is_initialized():
        check_room(settings.tp, settings.device)
    options = deployment_options(settings)
    observer = PluginObserver(settings.log_format, settings.log_file)
    plugins = {
        name: plugin_deployment(name, settings.plugin_settings, options, observer)
        for name in settings.plugin_names
    }
    ingress = serve.deployment(
        name="Ingress",
        num_replicas=settings.ingresses,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
        **{**options, "graceful_shutdown_timeout_s": settings.drain_s + CUT_S},
    )(Ingress)
    return ingress.bind(settings, _model(settings, options), plugins)


def _model(settings: ServeSettings, options: dict[str, Any]) -> Application:
    """A replica is one tensor-parallel group: a placement group with one bundle per rank."""
    deployment = serve.deployment(
        name="MossServer",
        ray_actor_options=rank_options(settings.device),
        placement_group_bundles=[rank_bundle(settings.device)] * settings.tp,
        placement_group_strategy=STRATEGY,
        request_router_config=router_config(),
        **{**options, **replica_options(settings)},
    )(MossServer)
    return deployment.bind(settings)
