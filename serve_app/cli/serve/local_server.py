"""Starts and stops what `moss serve` runs on this machine: store, Ray, deployments.

It does not depend on flags.
"""

import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from cluster.launch.local_ray import local_ray
from moss_tp.errors import MossError
from serve_app.cli.serve.draining import drained_on_stop
from serve_app.cli.serve.first_token import has_token_come
from serve_app.cli.serve.plugin_notes import plugin_notes, remote_asks
from serve_app.cli.serve.ray_watch import RayDiedError, RayWatch
from serve_app.cli.stored.location import EMBEDDED
from serve_app.deployments.serve_environment import SERVE_ENVIRONMENT, environment_of
from serve_app.settings import ServeSettings
from serve_app.store.embedded import EmbeddedStore

APP_NAME = "moss"
POLL_S = 0.2
PROGRESS_EVERY_S = 10
# For Serve to take its replicas down in order; then Ray ends what is left.
SHUTDOWN_S = 20
ABORT_S = 3  # while the model loads, nothing has an order to keep
ERROR_LINE = re.compile(r"^(?:[a-z_]+\.)*\w*(?:Error|Exception): (.+)$", re.MULTILINE)


class StartError(MossError):
    """The server did not start; the message is the innermost known cause."""


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
    *,
    has_dashboard: bool = False,
) -> Iterator[Callable[[], None]]:
    """Serves on `host`, an IP address, and `port` for the length of the block.

    Enters the block when requests work, with a function that raises when the server must end:
    RayDiedError, or whatever `check_stop` raises. Raises StartError when a deployment does not
    start. Running turns may end before a StopRequested passes on.
    """
    say("starting Ray")
    for name, value in SERVE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(environment_of(settings))
    watch = RayWatch(say)
    num_cpus = settings.tp * settings.replicas.most + 1
    started = local_ray(num_cpus, has_dashboard=has_dashboard)
    with watch.bounded_end(), started as own_ray, watch:
        if (board := own_ray.dashboard) is not None:
            say(f"Ray's dashboard: {board.url} (it asks for the token in {board.token_file})")

        def check() -> None:
            check_stop()
            watch.check()

        check()
        with _running_serve(host, port) as serving:
            check()
            ingress = _deploy(settings, say, check)
            serving.set()
            notes = plugin_notes(remote_asks(APP_NAME, settings.plugin_names), say)
            with notes, drained_on_stop(ingress, settings.drain_s, say):
                yield check


@contextmanager
def _running_serve(host: str, port: int) -> Iterator[threading.Event]:
    """Serve's system actors. Set the event when replicas serve, so that they end in order."""
    from ray import serve

    serving = threading.Event()
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        yield serving
    finally:
        if not isinstance(sys.exception(), RayDiedError):  # else nothing responds
            _end_serve(SHUTDOWN_S if serving.is_set() else ABORT_S)


def _end_serve(within_s: float) -> None:
    """`serve.shutdown`, which takes half a minute where a replica does not respond."""
    context: Any = import_module("ray.serve.context")  # private
    try:
        client = context._get_global_client(raise_if_no_controller_running=False)
        if client is not None:
            client.shutdown(within_s)  # when it takes longer, it logs that and returns
        context._disconnect()
    except Exception:  # it must not hide why the server ends; Ray ends what is left
        traceback.print_exc()


def wait_for_stop(check: Callable[[], None]) -> NoReturn:
    """Blocks until `check` raises; Serve itself replaces replicas that die."""
    while True:
        check()
        time.sleep(POLL_S)


def _deploy(
    settings: ServeSettings, say: Callable[[str], None], check_stop: Callable[[], None]
) -> Any:
    """Runs the application; returns its handle when all of its deployments are up."""
    from ray import serve

    from serve_app.app import build_app

    ranks = "1 rank" if settings.tp == 1 else f"{settings.tp} tensor-parallel ranks"
    each = "" if settings.replicas.most == 1 else f", for each of {settings.replicas} replicas"
    say(f"loading {settings.model_name} on {ranks}{each}")
    target = serve.RunTarget(build_app(settings), name=APP_NAME)
    (ingress,) = serve.run_many([target], wait_for_applications_running=False)
    _wait_running(say, check_stop)
    if settings.replicas.least and not has_token_come(ingress, check_stop):
        raise StartError("the model is up, but no token came from it by way of its router")
    return ingress


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
            waits = " ".join(d.message for d in app.deployments.values() if d.message)
            say(f"still loading ({said - started:.0f} s)" + (f": {waits}" if waits else ""))
        check_stop()
        time.sleep(POLL_S)


def _cause(messages: str) -> str:
    """The innermost error in Serve's messages: the last line of the last traceback."""
    found: list[str] = ERROR_LINE.findall(messages)
    return found[-1] if found else messages.strip() or "the deployment failed to start"
