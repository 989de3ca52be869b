"""Who comes first on cores that the model shares with the processes around it."""

import os
import sys
from contextlib import suppress
from pathlib import Path

NICENESS = 5  # more than the model's: a third of its weight, where all cores are busy


def yield_to_the_model() -> None:
    """Makes this process nicer, once: the threads that it has, and those that they start.

    The threads of a rank meet many times a step. Where one is off its core, all wait; a process
    that takes a request or sends tokens on loses only its own time. Does nothing but on Linux,
    where each thread has a niceness of its own.
    """
    if sys.platform != "linux":
        return
    for directory in Path("/proc/self/task").iterdir():
        thread = int(directory.name)
        with suppress(OSError):  # it has ended, or this is not allowed here
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
