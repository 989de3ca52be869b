"""Everything `moss serve` runs on this machine: store, Ray, deployments; started, watched, ended.

Entering it returns when the server answers. It knows no flags and decides nothing by itself.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from cluster.launch.local_ray import local_ray
from moss_tp.errors import MossError
from serve_app.cli.serve.preflight import EMBEDDED
from serve_app.sessions.embedded import EmbeddedStore
from serve_app.settings import ServeSettings

APP_NAME = "moss"
POLL_S = 0.2
WATCH_S = 2
PROGRESS_EVERY_S = 10
# Serve kills its own proxy when that is not up within five seconds; a busy laptop takes longer.
PROXY_START_S = ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
ERROR_LINE = re.compile(r"^(?:[a-z_]+\.)*\w*(?:Error|Exception): (.+)$", re.MULTILINE)


class StartError(MossError):
    """The server did not come up; the message is the first cause that is known."""


class RayDiedError(MossError):
    """Ray itself is gone from under the running server."""


@contextmanager
def session_store(url: str, data_dir: Path) -> Iterator[str]:
    """The URL of the store to use: the given one, or an embedded one's that lives as long."""
    if url != EMBEDDED:
        yield url
        return
    with EmbeddedStore(data_dir) as store:
        yield store.url


@contextmanager
def local_server(
    settings: ServeSettings,
    host: str,
    port: int,
    say: Callable[[str], None],
    check_stop: Callable[[], None],
) -> Iterator[None]:
    """Ray and the deployments, answering on `host` and `port` for the length of the block.

    Raises StartError when a deployment does not start, and whatever `check_stop` raises.
    """
    say("starting Ray")
    os.environ.setdefault(*PROXY_START_S)
    with local_ray(num_cpus=settings.tp * settings.replicas + 1):
        from ray import serve

        from serve_app.app import build_app

        check_stop()
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        try:
            check_stop()
            ranks = "1 rank" if settings.tp == 1 else f"{settings.tp} tensor-parallel ranks"
            say(f"loading {settings.model_name} on {ranks}")
            target = serve.RunTarget(build_app(settings), name=APP_NAME)
            serve.run_many([target], wait_for_applications_running=False)
            _wait_running(say, check_stop)
            yield
        finally:
            if not isinstance(sys.exception(), RayDiedError):  # else nobody is left to ask
                serve.shutdown()  # type: ignore[no-untyped-call]


def watch_ray(check_stop: Callable[[], None]) -> NoReturn:
    """Keeps the server up; replicas that die are Serve's business.

    Raises RayDiedError, or whatever `check_stop` raises.
    """
    import ray

    while any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
        until = time.monotonic() + WATCH_S
        while time.monotonic() < until:
            check_stop()
            time.sleep(POLL_S)
    raise RayDiedError("Ray has died, and the server with it")


def _wait_running(say: Callable[[str], None], check_stop: Callable[[], None]) -> None:
    """Returns when every deployment is up; a large model may take minutes to load."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    started = told = time.monotonic()
    while True:
        app = serve.status().applications[APP_NAME]
        if app.status == ApplicationStatus.RUNNING:
            return
        if app.status == ApplicationStatus.DEPLOY_FAILED:
            messages = [app.message, *(d.message for d in app.deployments.values())]
            raise StartError(_cause("\n".join(messages)))
        if time.monotonic() - told > PROGRESS_EVERY_S:
            told = time.monotonic()
            say(f"still loading ({told - started:.0f} s)")
        check_stop()
        time.sleep(POLL_S)


def _cause(messages: str) -> str:
    """The innermost error that Serve's messages tell of: their last line of a traceback."""
    found: list[str] = ERROR_LINE.findall(messages)
    return found[-1] if found else messages.strip() or "the deployment failed to start"
