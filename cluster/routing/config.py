"""How a deployment of model replicas gets our router."""

from typing import Any

from ray.serve.config import RequestRouterConfig

from cluster.routing.contract import check_contract
from cluster.routing.router import MossRouter as MossRouter

# Serve copies the module that it is told by value, whose globals would not be those of the process:
# so it is told this one, which only imports the router.
ROUTER = f"{__name__}:MossRouter"
STATS_PERIOD_S = 1.0  # how late routers may learn where other routers have sent a chat
STATS_TIMEOUT_S = 5.0
MAX_BACKOFF_S = 0.1  # between looks for a replica that has room


def router_config() -> RequestRouterConfig:
    """The option `request_router_config` of the deployment.

    Raises ConfigError, before anything is deployed, if the router cannot work with this Ray.
    """
    check_contract()
    options: dict[str, Any] = {
        "request_router_class": ROUTER,
        "request_routing_stats_period_s": STATS_PERIOD_S,
        "request_routing_stats_timeout_s": STATS_TIMEOUT_S,
        "max_backoff_s": MAX_BACKOFF_S,
    }
    return RequestRouterConfig(**options)
