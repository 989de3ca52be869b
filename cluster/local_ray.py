"""Ray on this machine alone: started for one process, on loopback, gone with it.

It knows nothing of models or Serve. A cluster that was started by `ray up` is joined elsewhere
(`serve deploy`); nothing here ever attaches to one.
"""

import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OBJECT_STORE_BYTES = 100 << 20  # prompts and deltas are small; weights never pass through it


@contextmanager
def local_ray(num_cpus: int) -> Iterator[Path]:
    """Ray for the length of the block; yields its temporary directory, where its logs are.

    `num_cpus` is what Ray may hand out, not what the machine has: a two-core laptop runs any
    number of ranks, only slower. The directory goes with a clean end and stays with an error.
    """
    _configure_environment()
    import ray  # reads the environment while it is imported

    # Short on purpose: Ray's socket paths below it must stay under 108 bytes.
    temp_dir = Path(tempfile.mkdtemp(prefix="moss-", dir="/tmp"))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(temp_dir),
        )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray takes it and exits
        yield temp_dir
    finally:
        ray.shutdown()
    shutil.rmtree(temp_dir, ignore_errors=True)


def _configure_environment() -> None:
    """What every process of this Ray inherits.

    The token is this run's own: no other user of the machine, and no other Ray, can talk to it.
    """
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_USAGE_STATS_ENABLED="0",
        # Named for other systems, but the one switch that makes Ray take 127.0.0.1 as its address
        # and listen nowhere else.
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    )
