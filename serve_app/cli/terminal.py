"""What `moss serve` shows: its own few lines, and nothing of what the libraries below it print.

Ray writes to the standard streams from C++ too, so the file descriptors themselves are turned to
a log file and our lines go to a copy of the user's.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


class Terminal:
    """Lines for the person who waits, on a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def elapsed_s(self) -> float:
        """How long the user has been waiting, imports included."""
        return time.time() - psutil.Process().create_time()

    def say(self, line: str) -> None:
        """Unbuffered, so that a signal handler may say something too."""
        with suppress(OSError):  # the terminal was closed: nobody listens
            os.write(self._descriptor, f"moss: {line}\n".encode())


@contextmanager
def quiet_terminal(log: Path) -> Iterator[Terminal]:
    """The user's stderr as a Terminal, while this process's stdout and stderr go to `log`."""
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
