"""Starts, watches and stops what `moss serve` runs on this machine: store, Ray, deployments.

It does not depend on flags.
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
from serve_app.cli.serve.options import EMBEDDED
from serve_app.deployments.options import FORCE_STOP
from serve_app.sessions.embedded import EmbeddedStore
from serve_app.settings import ServeSettings

APP_NAME = "moss"
POLL_S = 0.2
WATCH_S = 2
PROGRESS_EVERY_S = 10
# By default Serve kills a proxy that is not up in five seconds; a busy laptop takes longer.
PROXY_START_S = ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
ERROR_LINE = re.compile(r"^(?:[a-z_]+\.)*\w*(?:Error|Exception): (.+)$", re.MULTILINE)


class StartError(MossError):
    """The server did not start; the message is the innermost known cause."""


class RayDiedError(MossError):
    """Ray died while the server was running."""


@contextmanager
def session_store(url: str, data_dir: Path) -> Iterator[str]:
    """The URL of the store: `url`, or that of an embedded one that runs for the block."""
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
    """Serves on `host` and `port` for the length of the block; enters it when requests work.

    Raises StartError when a deployment does not start, and whatever `check_stop` raises.
    """
    say("starting Ray")
    os.environ.setdefault(*PROXY_START_S)
    os.environ.setdefault(*FORCE_STOP)
    with local_ray(num_cpus=settings.tp * settings.replicas + 1):
        from ray import serve

        check_stop()
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        try:
            check_stop()
            _deploy(settings, say, check_stop)
            yield
        finally:
            if not isinstance(sys.exception(), RayDiedError):  # else nothing answers
                serve.shutdown()  # type: ignore[no-untyped-call]


def watch_ray(check_stop: Callable[[], None]) -> NoReturn:
    """Blocks while Ray lives; Serve itself replaces replicas that die.

    Raises RayDiedError, or whatever `check_stop` raises.
    """
    import ray

    while any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
        until = time.monotonic() + WATCH_S
        while time.monotonic() < until:
            check_stop()
            time.sleep(POLL_S)
    raise RayDiedError("Ray has died, and the server with it")


def _deploy(
    settings: ServeSettings, say: Callable[[str], None], check_stop: Callable[[], None]
) -> None:
    """Runs the application; returns when all of its deployments are up."""
    from ray import serve

    from serve_app.app import build_app

    ranks = "1 rank" if settings.tp == 1 else f"{settings.tp} tensor-parallel ranks"
    say(f"loading {settings.model_name} on {ranks}")
    target = serve.RunTarget(build_app(settings), name=APP_NAME)
    serve.run_many([target], wait_for_applications_running=False)
    _wait_running(say, check_stop)


def _wait_running(say: Callable[[str], None], check_stop: Callable[[], None]) -> None:
    """Polls Serve, for a large model may take minutes to load. Raises StartError."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    started = said = time.monotonic()
    while True:
        app = serve.status().applications[APP_NAME]
        if app.status == ApplicationStatus.RUNNING:
            return
        if app.status == ApplicationStatus.DEPLOY_FAILED:
            messages = [app.message, *(d.message for d in app.deployments.values())]
            raise StartError(_cause("\n".join(messages)))
        if time.monotonic() - said > PROGRESS_EVERY_S:
            said = time.monotonic()
            say(f"still loading ({said - started:.0f} s)")
        check_stop()
        time.sleep(POLL_S)


def _cause(messages: str) -> str:
    """The innermost error in Serve's messages: the last line of the last traceback."""
    found: list[str] = ERROR_LINE.findall(messages)
    return found[-1] if found else messages.strip() or "the deployment failed to start"
