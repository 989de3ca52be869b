"""Nothing outlives `moss serve`: a process of its own that cleans up after it, however it ended.

It watches which processes the server starts, and which those start, for once a process's parent
is gone nothing tells whose it was. When the server's end of a pipe closes, which a SIGKILL does
too, it ends what is left of them; only what was started just before a SIGKILL can escape it.
It knows neither Ray nor the store.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil

WATCH_S = 2  # a look takes some 10 ms of processor time
GRACE_S = 3
POLL_S = 0.05


class Guard:
    """Enter it before starting anything; leaving it ends all that is left, and waits for that."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli.serve.guard", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is not meant for it
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()


def watch(server_pid: int) -> set[psutil.Process]:
    """All that the server started and that still runs, once the pipe on stdin has closed."""
    family: set[psutil.Process] = set()
    is_open = True
    while is_open:
        is_open = not select.select([sys.stdin], [], [], WATCH_S)[0]
        family = _grown(family, server_pid)
    return family - {psutil.Process()}


def _grown(family: set[psutil.Process], server_pid: int) -> set[psutil.Process]:
    """The running ones of `family`, the server's children, and the children of both."""
    parents = {process: process.info["ppid"] for process in psutil.process_iter(["ppid"])}
    grown = family & parents.keys()
    while True:
        pids = {server_pid, *(process.pid for process in grown)}
        born = {process for process, parent in parents.items() if parent in pids} - grown
        if not born:
            return grown
        grown |= born


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Asks them to end, and makes those that have not after GRACE_S."""
    left = [process for process in processes if _is_alive(process)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = time.monotonic() + GRACE_S
        while left and time.monotonic() < deadline:
            time.sleep(POLL_S)
            left = [process for process in left if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    """A zombie has ended; that nobody has asked how is not the guard's business."""
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    end_all(watch(int(sys.argv[1])))
