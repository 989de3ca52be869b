"""What `moss serve` shows: its own few lines, and nothing of what the libraries below it print.

Ray writes to the standard streams from C++ too, so the file descriptors themselves are turned to
a log file and our lines go to a copy of the user's.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import psutil


class Terminal:
    """Lines for the person who waits."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def elapsed_s(self) -> float:
        """How long the user has been waiting, imports included."""
        return time.time() - psutil.Process().create_time()

    def say(self, line: str) -> None:
        try:
            print(f"moss: {line}", file=self._stream, flush=True)
        except OSError:
            return  # the terminal was closed; the server stops without an audience


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
        with open(saved[1], "w", encoding="utf-8", closefd=False) as stream:
            yield Terminal(stream)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, copy in enumerate(saved, start=1):
            os.dup2(copy, target)
            os.close(copy)
