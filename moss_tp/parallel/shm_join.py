"""How the ranks find out whether they share a host, and agree on it: all of them or none."""

import os
from collections.abc import Callable

from torch.distributed.distributed_c10d import Store

from moss_tp.parallel.segment import Segment
from moss_tp.parallel.shm import SharedMemory

_WHERE = "where"


def join_shared_memory(
    store: Store,
    rank: int,
    size: int,
    timeout_s: float,
    all_agree: Callable[[bool], bool],
) -> SharedMemory | None:
    """None, on every rank, where one cannot reach rank 0's memory.

    `all_agree` tells every rank whether all of them said True.
    """
    file = None
    try:
        if rank == 0:
            file, where = _create(size)
            store.set(_WHERE, where)
        else:
            where = store.get(_WHERE).decode()
        segment = Segment.open(where, rank, size) if _can_watch() else None
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


def _can_watch() -> bool:
    """Whether this kernel tells of the end of processes: Linux 5.3, where it is not forbidden."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
