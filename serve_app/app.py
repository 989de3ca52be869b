"""The whole server as one Serve application; the only place where its parts are put together.

`moss serve` runs what `build_app` returns, and `serve deploy` finds it by the import path
`serve_app.app:build_app`.
"""

from ray import serve
from ray.serve import Application

from cluster.ranks.placement import STRATEGY, rank_bundle, rank_options
from plugins_svc.deployment import plugin_deployment
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.model import MossServer
from serve_app.settings import ServeSettings

# Beyond what the engine queues itself: Serve's own queue is polled, and slow.
MAX_ONGOING_REQUESTS = 4096
HEALTH_CHECK_PERIOD_S = 2
HEALTH_CHECK_TIMEOUT_S = 10
DRAIN_POLL_S = 0.2
INGRESS_CPUS = 0.1
PLUGIN_OPTIONS = {
    "max_ongoing_requests": 256,
    "health_check_period_s": HEALTH_CHECK_PERIOD_S,
    "graceful_shutdown_timeout_s": 5,
    "graceful_shutdown_wait_loop_s": DRAIN_POLL_S,
}


def build_app(settings: ServeSettings) -> Application:
    """Ingress, model and plugins, bound. Raises ConfigError for settings that cannot work."""
    # Decided here, so that it holds for every replica.
    settings = settings.model_copy(update={"dialogue": settings.spoken_dialogue})
    plugins = {
        name: plugin_deployment(name, settings.plugin_settings, PLUGIN_OPTIONS)
        for name in settings.plugin_names
    }
    ingress = serve.deployment(
        name="Ingress",
        ray_actor_options={"num_cpus": INGRESS_CPUS},
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_timeout_s=settings.drain_s,
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        max_constructor_retry_count=settings.start_attempts,
    )(Ingress)
    return ingress.bind(settings, _model(settings), plugins)


def _model(settings: ServeSettings) -> Application:
    """One replica a tensor-parallel group, on as many bundles of one node as it has ranks."""
    deployment = serve.deployment(
        name="MossServer",
        num_replicas=settings.replicas,
        ray_actor_options=rank_options(settings.device),
        placement_group_bundles=[rank_bundle(settings.device)] * settings.tp,
        placement_group_strategy=STRATEGY,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_timeout_s=settings.drain_s,
        graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
        max_constructor_retry_count=settings.start_attempts,
    )(MossServer)
    return deployment.bind(settings)
