"""Shows the lines of `moss serve` and sends what its libraries print to a log.

Ray writes to the standard streams from C++ too, so the file descriptors themselves are redirected
to the log; our lines go to a duplicate of the original stderr.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


class Terminal:
    """Writes lines for the user to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def elapsed_s(self) -> float:
        """Seconds since the process started, imports included."""
        return time.time() - psutil.Process().create_time()

    def say(self, line: str) -> None:
        """Writes one line, unbuffered, so that signal handlers can call it."""
        with suppress(OSError):  # the terminal was closed
            os.write(self._descriptor, f"moss: {line}\n".encode())


@contextmanager
def quiet_terminal(log: Path) -> Iterator[Terminal]:
    """Sends stdout and stderr to `log` for the block; yields a Terminal on the original stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield Terminal(saved[1])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, copy in enumerate(saved, start=1):
            os.dup2(copy, target)
            os.close(copy)
