"""A private Ray on this machine: started for one process, on loopback, ended with it.

It does not depend on models or Serve, and never attaches to a cluster started by `ray up`; that is
deployed to with `serve deploy`.
"""

import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.launch.run_directory import run_directory

# Below Ray's temporary directory; a pid has at most seven digits.
_LONGEST_SOCKET = "session_2026-11-26_11-19-17_123456_1234567/sockets/plasma_store.1"
OBJECT_STORE_BYTES = 100 << 20  # prompts and deltas are small; weights never pass through it
ALARM_S = 3  # by which a handler of Ray's aborts the process
CANCEL_ALARM_S = 0.5


@contextmanager
def local_ray(num_cpus: int) -> Iterator[Path]:
    """Runs Ray for the length of the block; yields its temporary directory, which has its logs.

    `num_cpus` is a scheduling limit and may exceed the machine's cores. The directory is removed
    at a clean exit or a Ctrl-C; after an error it is kept until the next start. Raises
    ConfigError if there is no place for it.
    """
    with run_directory("ray", _LONGEST_SOCKET) as temp_dir, _ray_environment():
        import ray  # reads the environment when it is imported

        try:
            _init(num_cpus, temp_dir)
            yield temp_dir
        finally:
            ray.shutdown()


def _init(num_cpus: int, temp_dir: Path) -> None:
    import ray

    with _own_sigterm():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(temp_dir),
        )


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
    thread = threading.Thread(target=_cancel_alarms, args=(is_over,), name="no-alarm", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # in place of the one in C++
        is_over.set()
        thread.join()
        utils.set_sigterm_handler = install


def _cancel_alarms(is_over: threading.Event) -> None:
    """A longer timer is somebody else's."""
    while True:
        was_over = is_over.wait(CANCEL_ALARM_S)
        if signal.getitimer(signal.ITIMER_REAL)[0] <= ALARM_S:
            signal.alarm(0)
        if was_over:
            return


@contextmanager
def _ray_environment() -> Iterator[None]:
    """Sets the environment that all processes of this Ray inherit.

    The random token keeps other users of the machine, and other Rays, out.
    """
    values = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # By default Ray's workers yield the CPU to everything else; here they are the server.
        "RAY_worker_niceness": "0",
        # Despite its name, the switch that makes Ray use 127.0.0.1 and listen nowhere else.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
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
