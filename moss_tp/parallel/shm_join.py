"""How ranks find out whether they share a host. All of them use shared memory, or none does."""

import os
from collections.abc import Callable

from torch.distributed.distributed_c10d import Store

from moss_tp.parallel.segment import Segment
from moss_tp.parallel.shm import SharedMemory

_LOCATION_KEY = "location"


def join_shared_memory(
    store: Store,
    rank: int,
    size: int,
    timeout_s: float,
    all_agree: Callable[[bool], bool],
) -> SharedMemory | None:
    """None on every rank if any rank cannot open rank 0's segment.

    `all_agree` returns, on every rank, whether all ranks passed True.
    """
    file = None
    try:
        if rank == 0:
            file, location = _create(size)
            store.set(_LOCATION_KEY, location)
        else:
            location = store.get(_LOCATION_KEY).decode()
        segment = Segment.open(location, rank, size) if _has_pidfd() else None
        if not all_agree(segment is not None) or segment is None:
            return None
        return SharedMemory(segment, rank, size, timeout_s)
    finally:
        if file is not None:
            os.close(file)


def _create(size: int) -> tuple[int | None, str]:
    try:
        return Segment.create(size)
    except OSError:
        return None, ""


def _has_pidfd() -> bool:
    """Whether a process can watch for another's end: Linux 5.3 or later, where it is allowed."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
