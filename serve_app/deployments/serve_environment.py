"""What Serve's own actors, controller and proxies, read from the environment when they start.

`moss serve` sets it unless the user has; on a cluster it stands in the head's start command. Three
failed health checks in a row end a proxy: a dead one fails at once, a stopped one after the
time-out, and on a busy machine a response takes most of a second.
"""

from serve_app.http.origin import CORS_ORIGINS
from serve_app.proxy.contract import CALLBACK
from serve_app.settings import ServeSettings

SERVE_ENVIRONMENT = {
    # Without it, a replica that is replaced because it hangs would keep its placement group, hence
    # its successor waiting, as long as a healthy one may take to drain.
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    **dict((CALLBACK,)),
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
    "RAY_SERVE_PROXY_GRACEFUL_SHUTDOWN_TIMEOUT_S": "1",  # for one that does not respond
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # five seconds are few on a busy laptop
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "0.1",
    # By default 0.1 s for both: a fifth of the processor time of an idle server.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",  # Ray reports them as rarely
}


def environment_of(settings: ServeSettings) -> dict[str, str]:
    """The settings of a server that its proxies obey; on a cluster they stand there, too."""
    return {CORS_ORIGINS: " ".join(settings.cors_origins)}
