"""Nothing outlives `moss serve`: a process of its own that cleans up after it, however it ended.

Every process that the server starts, and every one that those start, inherits a mark in its
environment. The guard waits for the server's end of a pipe to close, which a SIGKILL does too,
and then ends what still carries the mark. It knows neither Ray nor the store.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil

MARK = "MOSS_SERVE_RUN"
GRACE_S = 3


class Guard:
    """Enter it before starting anything; leaving it ends all that is left, and waits for that."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(16)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli.guard", self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is not meant for it
        )
        os.environ[MARK] = self._mark
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        del os.environ[MARK]
        self.end()

    def end(self) -> None:
        """Ends what is left, now."""
        self._process.communicate()


def end_marked(mark: str) -> None:
    """Asks every process that carries the mark to end, and makes it after GRACE_S."""
    marked = [process for process in psutil.process_iter() if _mark_of(process) == mark]
    for process in marked:
        _signal(process.terminate)
    _, stubborn = psutil.wait_procs(marked, timeout=GRACE_S)
    for process in stubborn:
        _signal(process.kill)
    psutil.wait_procs(stubborn, timeout=GRACE_S)


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:  # another user's, or gone
        return None


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()


if __name__ == "__main__":
    sys.stdin.read()  # until the server is gone
    end_marked(sys.argv[1])
