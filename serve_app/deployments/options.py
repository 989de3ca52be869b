"""The Ray Serve options that all deployments of the application share.

One set for ingress, model and plugins, so that health checks, draining and failed starts work the
same everywhere. Name, replicas and resources are set where each deployment is built.
"""

from typing import Any

from ray.serve.schema import LoggingConfig

from cluster.scaling.policy import Scaling
from cluster.scaling.serve_policy import autoscaling_config
from serve_app.settings import ServeSettings

# Beyond the bound of the engine's own queue: Serve's queue is polled, hence slow.
MAX_ONGOING_REQUESTS = 4096
# Serve replaces a replica after three failed checks in a row. One that was stopped, or whose event
# loops hang, answers none: so it is replaced about eight seconds later.
HEALTH_CHECK_PERIOD_S = 1
HEALTH_CHECK_TIMEOUT_S = 2
DRAIN_POLL_S = 0.2
# A replica that nobody needs any more ends when its last stream does, however long that takes.
LONGEST_STREAM_S = 600


def deployment_options(settings: ServeSettings) -> dict[str, Any]:
    """Keyword arguments of `serve.deployment`."""
    return {
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": HEALTH_CHECK_TIMEOUT_S,
        "graceful_shutdown_timeout_s": settings.drain_s,
        "graceful_shutdown_wait_loop_s": DRAIN_POLL_S,
        "max_constructor_retry_count": settings.start_attempts,
        # Its lines would name uids, and come besides our own.
        "logging_config": LoggingConfig(enable_access_log=False).model_dump(),
    }


def replica_options(settings: ServeSettings) -> dict[str, Any]:
    """How many replicas of the model there are."""
    replicas = settings.replicas
    if replicas.is_fixed:
        return {"num_replicas": replicas.most}
    return {
        "autoscaling_config": autoscaling_config(
            Scaling(replicas, down_after_s=settings.scale_down_after_s)
        ),
        "graceful_shutdown_timeout_s": max(settings.drain_s, LONGEST_STREAM_S),
    }
