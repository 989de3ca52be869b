"""Memory that all ranks of one host share, and the proof that they are on one.

    | flag of rank 0 | ... | flag of rank n-1 | slots of even turns | slots of odd turns |
    flag:  | posted, sleepers: see shm_kernels | closed | pid |       each a line of its own
    slots: | rank 0 | ... | rank n-1 |                                SLOT_BYTES each

An unnamed file (memfd) that lives exactly as long as somebody maps it: whoever is killed, and
when, nothing is left behind. It knows no turns' order and no tensors.
"""

import mmap
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np

from moss_tp.parallel.shm_kernels import LINE

SLOT_BYTES = 1 << 19
_CLOSED, _PID = 16, 24
_WORD_BYTES = 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Segment:
    """One rank's view. Unmapped when the last reference goes, never under a running kernel."""

    def __init__(self, memory: mmap.mmap, rank: int, size: int) -> None:
        self.bytes = np.frombuffer(memory, np.uint8)
        self._words = self.bytes.view(np.int64)
        self._address = int(self.bytes.ctypes.data)
        self._size = size
        self._words[self._word(rank, _PID)] = os.getpid()

    @staticmethod
    def create(size: int) -> tuple[int, str]:
        """Rank 0's: a file for `size` ranks, and where the others find it. Raises OSError.

        Close the file once all have opened it.
        """
        name = f"moss-tp-{secrets.token_hex(16)}"
        file = os.memfd_create(name)
        os.ftruncate(file, _slots_at(size) + 2 * size * SLOT_BYTES)
        return file, f"{_BOOT_ID.read_text().strip()}/{os.getpid()}/{file}/{name}"

    @classmethod
    def open(cls, where: str, rank: int, size: int) -> Self | None:
        """None where it cannot be reached: another host, container or user."""
        with suppress(OSError, ValueError):
            boot_id, pid, file, name = where.split("/")
            path = Path(f"/proc/{pid}/fd/{file}")
            # Only then is it this very process that is meant, and no file of anybody else.
            if boot_id == _BOOT_ID.read_text().strip() and f"memfd:{name}" in str(path.readlink()):
                with path.open("r+b") as opened:
                    return cls(mmap.mmap(opened.fileno(), 0), rank, size)
        return None

    def flag(self, rank: int) -> int:
        """Address of a rank's flag."""
        return self._address + rank * LINE

    def slot(self, rank: int, turn: int) -> int:
        """Address of a rank's slot in a turn."""
        return self._address + self.slot_offset(rank, turn)

    def slot_offset(self, rank: int, turn: int) -> int:
        return _slots_at(self._size) + (turn % 2 * self._size + rank) * SLOT_BYTES

    def pid(self, rank: int) -> int:
        return int(self._words[self._word(rank, _PID)])

    def set_closed(self, rank: int) -> None:
        self._words[self._word(rank, _CLOSED)] = 1

    def is_closed(self, rank: int) -> bool:
        return bool(self._words[self._word(rank, _CLOSED)])

    @staticmethod
    def _word(rank: int, offset: int) -> int:
        return (rank * LINE + offset) // _WORD_BYTES


def _slots_at(size: int) -> int:
    return -(-size * LINE // mmap.PAGESIZE) * mmap.PAGESIZE
