"""A helper process that ends everything `moss serve` started, however the server itself ended.

It records the server's descendants while the server runs, because an orphan no longer shows whose
child it was. When the server's end of a pipe closes, which happens on SIGKILL too, it ends those
that still run. Only a process started within WATCH_S before a SIGKILL can escape it. It
depends neither on Ray nor on the store.
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

WATCH_S = 2  # listing the processes takes some 10 ms of CPU time
GRACE_S = 3  # between SIGTERM and SIGKILL
POLL_S = 0.05


class Guard:
    """Enter it before starting any process; leaving it ends those that still run, and waits."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli.serve.guard", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that a Ctrl-C does not reach it
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
    """Blocks until the pipe on stdin closes; returns the server's descendants that still run."""
    family: set[psutil.Process] = set()
    is_open = True
    while is_open:
        is_open = not select.select([sys.stdin], [], [], WATCH_S)[0]
        family = _update(family, server_pid)
    return family - {psutil.Process()}


def _update(family: set[psutil.Process], server_pid: int) -> set[psutil.Process]:
    """`family` without those that ended, with the server's children and the children of all."""
    parents = {process: process.info["ppid"] for process in psutil.process_iter(["ppid"])}
    alive = family & parents.keys()
    while True:
        pids = {server_pid, *(process.pid for process in alive)}
        new = {process for process, parent in parents.items() if parent in pids} - alive
        if not new:
            return alive
        alive |= new


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Sends SIGTERM, and SIGKILL to those that still run after GRACE_S."""
    left = [process for process in processes if is_alive(process)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = time.monotonic() + GRACE_S
        while left and time.monotonic() < deadline:
            time.sleep(POLL_S)
            left = [process for process in left if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    """A zombie counts as ended; reaping it is up to its parent."""
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    end_all(watch(int(sys.argv[1])))
