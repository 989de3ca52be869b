"""Nothing outlives `moss serve`: a process of its own that cleans up after it, however it ended.

It watches which processes the server starts, and which those start, for once a process's parent
is gone nothing tells whose it was. When the server's end of a pipe closes, which a SIGKILL does
too, it ends what is left of them; only what was started just before a SIGKILL can escape it.
It knows neither Ray nor the store.
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil

WATCH_S = 2  # a look takes some 10 ms of processor time
GRACE_S = 3


class Guard:
    """Enter it before starting anything; leaving it ends all that is left, and waits for that."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli.guard", str(os.getpid())],
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
        self.end()

    def end(self) -> None:
        """Ends what is left, now."""
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
    for process in processes:
        _signal(process.terminate)
    _, stubborn = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in stubborn:
        _signal(process.kill)
    psutil.wait_procs(stubborn, timeout=GRACE_S)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):  # it has ended by itself, meanwhile
        send()


if __name__ == "__main__":
    end_all(watch(int(sys.argv[1])))
