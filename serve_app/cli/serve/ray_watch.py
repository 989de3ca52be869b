"""Watches the processes of Ray that a server cannot do without.

Ray's own calls hang when its GCS has died, and after a minute Ray ends the process without a word.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import psutil

from moss_tp.errors import MossError
from serve_app.cli.serve.guard import is_alive

NEEDED = ("gcs_server", "raylet")
WATCH_S = 0.5
LEAVE_S = 3  # for an orderly end; most calls of a Ray without its GCS never return
DIED = 1  # exit status


class RayDiedError(MossError):
    """Ray died while the server was running."""


class RayWatch:
    """A context, entered while Ray runs: `check` raises when it has died.

    Enter `bounded_end` before Ray starts: if its block has not ended LEAVE_S after a death, the
    watch says so and exits; the guard ends the rest.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._is_over = threading.Event()
        self._has_left = threading.Event()
        self._dead: str | None = None
        self._processes: dict[str, psutil.Process] = {}
        self._thread = threading.Thread(target=self._watch, name="ray-watch", daemon=True)

    def check(self) -> None:
        """Raises RayDiedError."""
        if self._dead is not None:
            raise RayDiedError(self._message)

    @contextmanager
    def bounded_end(self) -> Iterator[None]:
        """Only for what uses Ray: whatever ends after the block takes its own time."""
        try:
            yield
        finally:
            self._has_left.set()

    def __enter__(self) -> Self:
        self._processes = _needed_children()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()  # Ray is about to be shut down

    @property
    def _message(self) -> str:
        return f"Ray has died ({self._dead} is gone), and the server with it"

    def _watch(self) -> None:
        while not self._is_over.wait(WATCH_S):
            gone = (name for name, process in self._processes.items() if not is_alive(process))
            dead = next(gone, None)
            if dead is not None and not self._is_over.is_set():  # else it is being shut down
                self._dead = dead
                self._leave_in(LEAVE_S)

    def _leave_in(self, seconds: float) -> None:
        """Exits after that, unless Ray has been left by then."""
        if not self._has_left.wait(seconds):
            self._say(self._message)
            os._exit(DIED)


def _needed_children() -> dict[str, psutil.Process]:
    found = {}
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            name = child.name()
            if name in NEEDED:
                found[name] = child
    return found
