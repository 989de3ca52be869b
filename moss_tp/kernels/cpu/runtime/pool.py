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
        self.max_rows = max_rows
        self._programs: dict[Hashable, tuple[T, int]] = {}  # oldest first
        self._lock = threading.Lock()

    def take(self, key: Hashable, num_rows: int) -> T | None:
        """Removes and returns a program. Without one for `key` it returns None, and makes room for
        a program of `num_rows` to be built."""
        with self._lock:
            found = self._programs.pop(key, None)
            if found is not None:
                return found[0]
            self._evict(num_rows)
        return None

    def put(self, key: Hashable, program: T, num_rows: int) -> None:
        with self._lock:
            self._programs.pop(key, None)
            self._evict(num_rows)
            self._programs[key] = program, num_rows

    def _evict(self, num_rows: int) -> None:
        """Drops the oldest programs, until `num_rows` more fit."""
        total = num_rows + sum(rows for _, rows in self._programs.values())
        while self._programs and total > self.max_rows:
            _, rows = self._programs.pop(next(iter(self._programs)))
            total -= rows
