"""Ray on this machine alone: started for one process, on loopback, gone with it.

It knows nothing of models or Serve. A cluster that was started by `ray up` is joined elsewhere
(`serve deploy`); nothing here ever attaches to one.
"""

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

OBJECT_STORE_BYTES = 100 << 20  # prompts and deltas are small; weights never pass through it


@contextmanager
def local_ray(num_cpus: int) -> Iterator[Path]:
    """Ray for the length of the block; yields its temporary directory, where its logs are.

    `num_cpus` is what Ray may hand out, not what the machine has: a two-core laptop runs any
    number of ranks, only slower. The directory goes with a clean end, a Ctrl-C included, and
    stays with an error.
    """
    # Short on purpose: Ray's socket paths below it must stay under 108 bytes.
    temp_dir = Path(tempfile.mkdtemp(prefix="moss-", dir="/tmp"))
    with _environment():
        import ray  # reads the environment while it is imported

        try:
            _init(num_cpus, temp_dir)
            yield temp_dir
        finally:
            ray.shutdown()
            if not isinstance(sys.exception(), Exception):  # to be told to stop is no error
                shutil.rmtree(temp_dir, ignore_errors=True)


def _init(num_cpus: int, temp_dir: Path) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
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
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray had put its own there, which exits


@contextmanager
def _environment() -> Iterator[None]:
    """What every process of this Ray inherits.

    The token is this run's own: no other user of the machine, and no other Ray, can talk to it.
    """
    values = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray lets everything else on the machine go first; its actors are the server here.
        "RAY_worker_niceness": "0",
        # Named for other systems, but the one switch that makes Ray take 127.0.0.1 as its address
        # and listen nowhere else.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    is_cluster_allowed = _reread_environment(False)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _reread_environment(is_cluster_allowed)


def _reread_environment(is_cluster_allowed: bool) -> bool:
    """Ray keeps what it found when it was imported, which may have been long before.

    Returns whether it took this machine's outside address until now.
    """
    from ray._private import ray_constants

    before: bool = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = is_cluster_allowed
    compiled: Any = import_module("ray._raylet")  # untyped, and nobody's interface
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()
    return before
