"""How ranks meet: the store they rendezvous at, what they agree on, whose GPU is whose."""

import platform
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, unstubbed
from torch.distributed.distributed_c10d import PrefixStore, Store

from moss_tp.parallel.backends import Backend, wait_for

if TYPE_CHECKING:
    from moss_tp.parallel.shm import SharedMemory

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def connect_store(address: tuple[str, int], rank: int, timeout: timedelta) -> TCPStore:
    """The store that rank 0 listens on."""
    return TCPStore(
        *address,
        is_master=rank == 0,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
    )


def shared_memory(
    store: Store, rank: int, size: int, timeout_s: float, control: Backend, is_willing: bool
) -> "SharedMemory | None":
    """Memory of all ranks, or None on every rank where one is not willing or cannot."""
    if not _all_agree(control, is_willing and _has_ordered_stores()):
        return None
    # Imported here, since it compiles kernels, and works on such machines only.
    from moss_tp.parallel.shm_join import join_shared_memory

    return join_shared_memory(store, rank, size, timeout_s, partial(_all_agree, control))


def have_gpus_of_their_own(store: Store, rank: int, size: int, device: torch.device) -> bool:
    """Whether no two ranks are on one GPU, where NCCL refuses to work. The same on every rank."""
    gpus = PrefixStore("gpus", store)
    boot_id = _BOOT_ID.read_text() if _BOOT_ID.exists() else platform.node()
    gpus.set(str(rank), f"{boot_id} {torch.cuda.get_device_properties(device).uuid}")
    return len({gpus.get(str(peer)) for peer in range(size)}) == size


def _all_agree(control: Backend, vote: bool) -> bool:
    """Whether every rank votes True; the answer is the same on every rank."""
    votes = torch.tensor([vote], dtype=torch.int32)
    options: Any = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp.MIN
    wait_for(control.allreduce([votes], options))
    return bool(votes.item())


def _has_ordered_stores() -> bool:
    """Whether cores see each other's stores in order (x86) and futexes exist (Linux)."""
    return sys.platform == "linux" and platform.machine() == "x86_64"
