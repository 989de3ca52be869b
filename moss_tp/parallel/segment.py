"""A shared-memory segment for the ranks of one host, and the proof that they are on one host.

    | flag of rank 0 | ... | flag of rank n-1 | slots of even epochs | slots of odd epochs |
    flag:  | posted, sleepers: see shm_kernels | closed | pid |       FLAG_BYTES each
    slots: | rank 0 | ... | rank n-1 |                                SLOT_BYTES each

The memory is an anonymous file (memfd). It lives while a process maps it, so nothing is left
behind when ranks are killed. The protocol is in `shm`.
"""

import mmap
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np

from moss_tp.parallel.shm_kernels import FLAG_BYTES

SLOT_BYTES = 1 << 19
_CLOSED, _PID = 16, 24  # offsets in a flag
_INT_BYTES = 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Segment:
    """One rank's mapping. Unmapped with its last reference, so never under a running kernel."""

    def __init__(self, memory: mmap.mmap, rank: int, size: int) -> None:
        self.bytes = np.frombuffer(memory, np.uint8)
        self._ints = self.bytes.view(np.int64)
        self._address = int(self.bytes.ctypes.data)
        self._size = size
        self._ints[self._int_index(rank, _PID)] = os.getpid()

    @staticmethod
    def create(size: int) -> tuple[int, str]:
        """On rank 0: a file descriptor for `size` ranks, and the location that `open` takes.

        Close the descriptor once all ranks have opened the segment. Raises OSError.
        """
        name = f"moss-tp-{secrets.token_hex(16)}"
        file = os.memfd_create(name)
        os.ftruncate(file, _slots_offset(size) + 2 * size * SLOT_BYTES)
        return file, f"{_BOOT_ID.read_text().strip()}/{os.getpid()}/{file}/{name}"

    @classmethod
    def open(cls, location: str, rank: int, size: int) -> Self | None:
        """None where it is out of reach: on another host, in another container, or as another
        user."""
        with suppress(OSError, ValueError):
            boot_id, pid, file, name = location.split("/")
            path = Path(f"/proc/{pid}/fd/{file}")
            # The boot id and the random name make sure that it is rank 0's file and no other.
            if boot_id == _BOOT_ID.read_text().strip() and f"memfd:{name}" in str(path.readlink()):
                with path.open("r+b") as opened:
                    return cls(mmap.mmap(opened.fileno(), 0), rank, size)
        return None

    def flag(self, rank: int) -> int:
        """Address of a rank's flag."""
        return self._address + rank * FLAG_BYTES

    def slot(self, rank: int, epoch: int) -> int:
        """Address of a rank's slot in an epoch."""
        return self._address + self.slot_offset(rank, epoch)

    def slot_offset(self, rank: int, epoch: int) -> int:
        return _slots_offset(self._size) + (epoch % 2 * self._size + rank) * SLOT_BYTES

    def pid(self, rank: int) -> int:
        return int(self._ints[self._int_index(rank, _PID)])

    def set_closed(self, rank: int) -> None:
        self._ints[self._int_index(rank, _CLOSED)] = 1

    def is_closed(self, rank: int) -> bool:
        return bool(self._ints[self._int_index(rank, _CLOSED)])

    @staticmethod
    def _int_index(rank: int, offset: int) -> int:
        return (rank * FLAG_BYTES + offset) // _INT_BYTES


def _slots_offset(size: int) -> int:
    return -(-size * FLAG_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE
