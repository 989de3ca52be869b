"""The signals that stop `moss serve`: the first one in order, the second at once.

The first signal is only recorded; the server polls for it. An exception raised in the handler
could surface in one of Ray's callbacks, which would swallow it, or interrupt a clean-up.
"""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

from serve_app.cli.terminal import Terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED_AT_ONCE = 130  # exit status


class StopRequested(BaseException):
    """The server was asked to stop; not an error."""


class StopSignals:
    """A context in which the first signal makes `check` raise and the second exits at once."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._is_requested = False

    @property
    def is_requested(self) -> bool:
        return self._is_requested

    def check(self) -> None:
        """Raises StopRequested after a signal. Call it a few times a second."""
        if self._is_requested:
            raise StopRequested

    def __enter__(self) -> Self:
        for number in SIGNALS:
            signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_requested:
            os._exit(STOPPED_AT_ONCE)  # the guard ends what still runs
        self._is_requested = True
        self._terminal.say("stopping (once more to stop at once)")
