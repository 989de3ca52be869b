"""The end of a running server: all ingress replicas drain before Serve is taken down.

Serve itself ends its proxy first, and with it every connection. Nothing here waits for long on an
ingress or a Ray that has died.
"""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from serve_app.cli.serve.stop_signals import StopRequested
from serve_app.deployments.replica_end import CUT_S

CALL_S = 10  # for an ingress to respond at all
RELAY_S = 3  # for the proxy to pass on what it got; a client that does not read may hold it
POLL_S = 0.05
PROXY_ACTOR = "SERVE_PROXY_ACTOR"


@contextmanager
def drained_on_stop(ingress: Any, within_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """When the block ends with StopRequested, drains before it passes on.

    `ingress` is the DeploymentHandle of the application.
    """
    try:
        yield
    except StopRequested:
        try:
            _drain(ingress, within_s, say)
        except Exception:  # what does not respond cannot be waited for
            traceback.print_exc()
        raise


def _drain(ingress: Any, within_s: float, say: Callable[[str], None]) -> None:
    # One replica that does not respond is no reason to cut the turns of the others.
    begun = ingress.broadcast("begin_drain").results(timeout_s=CALL_S, return_exceptions=True)
    if num_running := sum(count for count in begun if isinstance(count, int)):
        say(f"waiting for running replies ({num_running}), at most {within_s:g} s")
    finish = ingress.broadcast("finish_drain", within_s)
    finish.results(timeout_s=within_s + CUT_S, return_exceptions=True)
    _wait_for_proxies(RELAY_S)


def _wait_for_proxies(within_s: float) -> None:
    """Returns when the proxies have passed on all responses. Raises GetTimeoutError."""
    import ray

    deadline = time.monotonic() + within_s
    named = ray.util.list_named_actors(all_namespaces=True)
    proxies = [
        ray.get_actor(actor["name"], actor["namespace"])
        for actor in named
        if actor["name"].startswith(PROXY_ACTOR)
    ]
    for proxy in proxies:
        proxy.update_draining.remote(True)
    while not all(ray.get([proxy.is_drained.remote() for proxy in proxies], timeout=within_s)):
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_S)
