"""torch's communication backends, outside its global registry of process groups.

So a process can be in several groups. Collectives are called in `tp_group`, not here.
"""

import socket
from datetime import timedelta
from typing import Any

import torch
from torch.distributed.distributed_c10d import ProcessGroupGloo, Store

# A process group of one backend. Any, as torch's stubs declare collectives only on the wrapper
# class that the registry returns.
Backend = Any


def gloo_backend(
    store: Store, rank: int, size: int, address: tuple[str, int], timeout: timedelta
) -> Backend:
    """gloo, bound to the interface that routes to rank 0: loopback stays on loopback."""
    with socket.create_connection(address, timeout=timeout.total_seconds()) as connection:
        local_ip = connection.getsockname()[0]
    gloo: Any = ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=local_ip)]
    return gloo(store, rank, size, options)


def nccl_backend(store: Store, rank: int, size: int, timeout: timedelta) -> Backend:
    # Imported here: a torch that was built for CPU only does not have it.
    from torch.distributed import ProcessGroupNCCL

    options = ProcessGroupNCCL.Options()
    options._timeout = timeout
    return ProcessGroupNCCL(store, rank, size, options)


def indexed_device(device: str | torch.device) -> torch.device:
    """`device` with an index, which torch and NCCL need: "cuda" is GPU 0, the only one that Ray
    shows a process."""
    named = torch.device(device)
    return torch.device("cuda", 0) if named.type == "cuda" and named.index is None else named
