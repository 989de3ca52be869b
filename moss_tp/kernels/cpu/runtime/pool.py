"""Keeps recently built programs, with the scratch memory they own, for the steps to come.

Decode steps repeat: same number of rows, other addresses. A program is out of the pool while it
runs, so that two threads never share one.
"""

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_ROWS = 256


class ProgramPool(Generic[T]):
    """Programs by key. Scratch memory grows with a program's rows, so the pool holds up to
    `max_rows` rows in all, or the last program alone where that has more."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._programs: dict[Hashable, tuple[T, int]] = {}  # oldest first
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> T | None:
        """Removes and returns a program; None if there is none for `key`."""
        with self._lock:
            found = self._programs.pop(key, None)
        return None if found is None else found[0]

    def put(self, key: Hashable, program: T, num_rows: int) -> None:
        with self._lock:
            self._programs.pop(key, None)
            self._programs[key] = program, num_rows
            while len(self._programs) > 1 and self._num_rows() > self._max_rows:
                del self._programs[next(iter(self._programs))]

    def _num_rows(self) -> int:
        return sum(num_rows for _, num_rows in self._programs.values())
