"""A private Ray on this machine: started for one process, on loopback, ended with it.

It does not depend on models or Serve, and never attaches to a cluster started by `ray up`; that is
deployed to with `serve deploy`.
"""

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.launch.housekeeping import housekeeping
from cluster.launch.run_directory import run_directory

# Below Ray's temporary directory; a pid has at most seven digits.
_LONGEST_SOCKET = "session_2026-11-26_11-19-17_123456_1234567/sockets/plasma_store.1"
OBJECT_STORE_BYTES = 100 << 20  # prompts and deltas are small; weights never pass through it
ALARM_S = 3  # by which a handler of Ray's aborts the process
CANCEL_ALARM_S = 0.5
_SOON_S = 0.05
_TOKEN = "RAY_AUTH_TOKEN"


@dataclass(frozen=True)
class Dashboard:
    """Ray's page in a browser. It asks for the token, of which only this user can read the file."""

    url: str
    token_file: Path


@dataclass(frozen=True)
class LocalRay:
    """`directory` has its logs."""

    directory: Path
    dashboard: Dashboard | None


@contextmanager
def local_ray(num_cpus: int, *, has_dashboard: bool = False) -> Iterator[LocalRay]:
    """Runs Ray for the length of the block.

    `num_cpus` is a scheduling limit and may exceed the machine's cores. The directory is removed
    at a clean exit or a Ctrl-C; after an error it is kept until the next start. Raises
    ConfigError if there is no place for it.
    """
    environment = _ray_environment(has_dashboard=has_dashboard)
    with run_directory("ray", _LONGEST_SOCKET) as temp_dir, environment:
        import ray  # reads the environment when it is imported

        try:
            address = _init(num_cpus, temp_dir, has_dashboard)
            yield LocalRay(temp_dir, _dashboard(address, temp_dir) if has_dashboard else None)
        finally:
            ray.shutdown()


def _dashboard(address: str, temp_dir: Path) -> Dashboard:
    token_file = temp_dir / "dashboard-token"
    token_file.touch(mode=0o600)
    token_file.write_text(os.environ[_TOKEN], "utf-8")
    return Dashboard(f"http://{address}", token_file)


def _init(num_cpus: int, temp_dir: Path, has_dashboard: bool) -> str:
    """The dashboard's host and port, if it has one; a free port if Ray's usual one is taken."""
    import ray

    with _own_sigterm():
        context = ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=has_dashboard,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(temp_dir),
        )
    return str(context.dashboard_url)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps this process's handler of SIGTERM while Ray starts, and it alive after one.

    Ray would exit from wherever it is, and a Ray that is half started aborts then. Its C++ side
    has a handler too: that calls ours, but aborts by an alarm ALARM_S later.
    """
    utils: Any = import_module("ray._private.utils")
    handler, install = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler_of_ray: None
    is_over = threading.Event()
    timer = _Timer()
    arguments = (is_over, timer)
    thread = threading.Thread(target=_cancel_alarms, args=arguments, name="no-alarm", daemon=True)
    thread.start()
    try:
        yield
    finally:
        # In place of the one in C++. None stands for one of the caller's that Python does not know.
        is_main = threading.current_thread() is threading.main_thread()
        if handler is not None and is_main:
            signal.signal(signal.SIGTERM, handler)
        is_over.set()
        thread.join()
        if is_main:
            timer.restore()
        utils.set_sigterm_handler = install


class _Timer:
    """The caller's real-time timer and handler of its signal, which an alarm of Ray's replaces.

    The timer can be put back only after the handler, and that only by the main thread.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGALRM)
        left, self._interval = signal.getitimer(signal.ITIMER_REAL)
        self._due = time.monotonic() + left if left else None
        self._is_replaced = False

    def cancel_alarm(self) -> None:
        """Cancels an alarm of Ray's. A longer timer is somebody else's."""
        left = signal.getitimer(signal.ITIMER_REAL)[0]
        own_left = self._left()
        if 0 < left <= ALARM_S and (own_left is None or abs(left - own_left) > _SOON_S):
            signal.alarm(0)
            # One that was due since the last look may not have come before the alarm.
            self._is_replaced |= own_left is not None and own_left > -CANCEL_ALARM_S

    def restore(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGALRM, self._handler)
        left = self._left()
        if self._is_replaced and left is not None:
            signal.setitimer(signal.ITIMER_REAL, max(left, _SOON_S), self._interval)

    def _left(self) -> float | None:
        """Seconds until it is due, below 0 if it was, or None where there is none."""
        if self._due is None:
            return None
        left = self._due - time.monotonic()
        return left % self._interval if left < 0 < self._interval else left


def _cancel_alarms(is_over: threading.Event, timer: _Timer) -> None:
    while True:
        was_over = is_over.wait(CANCEL_ALARM_S)
        timer.cancel_alarm()
        if was_over:
            return


@contextmanager
def _ray_environment(*, has_dashboard: bool) -> Iterator[None]:
    """Sets the environment that all processes of this Ray inherit.

    The random token keeps other users of the machine, and other Rays, out.
    """
    values = {
        "RAY_AUTH_MODE": "token",
        _TOKEN: secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # By default Ray's workers yield the CPU to everything else; here they are the server.
        "RAY_worker_niceness": "0",
        # Despite its name, the switch that makes Ray use 127.0.0.1 and listen nowhere else.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        **housekeeping(has_dashboard=has_dashboard),
    }
    before = {name: os.environ.get(name) for name in values}
    _set_environment(values)
    was_cluster_allowed = _reload_ray_config(is_cluster_allowed=False)
    try:
        yield
    finally:
        _set_environment(before)
        _reload_ray_config(was_cluster_allowed)


def _set_environment(values: Mapping[str, str | None]) -> None:
    """None removes a variable."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _reload_ray_config(is_cluster_allowed: bool) -> bool:
    """Makes Ray read the environment again, for it may have been imported long before.

    Returns whether Ray was allowed to use this machine's outside address until now.
    """
    from ray._private import ray_constants

    before: bool = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = is_cluster_allowed
    compiled: Any = import_module("ray._raylet")  # untyped and private
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()
    return before
