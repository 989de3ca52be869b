"""torch's communication backends, outside its global registry of process groups.

So a process can be in several groups. Collectives are called in `tp_group` and `ordered_sum`.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch.distributed.distributed_c10d import ProcessGroupGloo, Store

T = TypeVar("T")
# A process group of one backend. Any, as torch's stubs declare collectives only on the wrapper
# class that the registry returns.
Backend = Any

# NCCL's side of torch has a watchdog of its own. By default it ends the process when a collective
# takes too long (ASYNC_ERROR_HANDLING=3), or aborts the communicator (1, 2): then a step that hung
# would seem to have ended, with wrong values. It never sees what a CUDA graph replays
# (pytorch#103503). Here rank 0 watches every step and ends the ranks, so the watchdog only looks
# on. Its monitor would end the process if it is stuck, and a blocking wait would query events,
# which ends a recording.
NCCL_ENVIRONMENT = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_BLOCKING_WAIT": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
}


def gloo_backend(
    store: Store, rank: int, size: int, address: tuple[str, int], timeout: timedelta
) -> Backend:
    """gloo, bound to the interface that routes to rank 0: loopback stays on loopback."""
    with socket.create_connection(address, timeout=timeout.total_seconds()) as connection:
        local_ip = connection.getsockname()[0]
    return gloo_on(local_ip, store, rank, size, timeout)


def gloo_on(local_ip: str, store: Store, rank: int, size: int, timeout: timedelta) -> Backend:
    """gloo, bound to an address of this machine."""
    gloo: Any = ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=local_ip)]
    return gloo(store, rank, size, options)


def nccl_backend(store: Store, rank: int, size: int, timeout: timedelta) -> Backend:
    """NCCL, which connects in its first collective. It neither watches nor ends anything."""
    # Imported here: a torch that was built for CPU only does not have it.
    from torch.distributed import ProcessGroupNCCL

    options = ProcessGroupNCCL.Options()
    options._timeout = timeout
    with _environment(NCCL_ENVIRONMENT):  # read when the group is made
        return ProcessGroupNCCL(store, rank, size, options)


def on_current_stream(options: T) -> T:
    """Options of a collective that NCCL runs on the current stream, between what is queued there,
    instead of on a stream of its own (pytorch#150398). There is nothing to wait for then: see
    `wait_for`."""
    options.asyncOp = False  # type: ignore[attr-defined]  # torch's stubs lack it
    return options


def wait_for(work: Any) -> None:
    """Waits for what a collective has returned: gloo's work, or None of NCCL with options of
    `on_current_stream`, where the stream orders all."""
    if work is not None:
        work.wait()


def indexed_device(device: str | torch.device) -> torch.device:
    """`device` with an index, which torch and NCCL need: "cuda" is GPU 0, the only one that Ray
    shows a process."""
    named = torch.device(device)
    return torch.device("cuda", 0) if named.type == "cuda" and named.index is None else named


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
