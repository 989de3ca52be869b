"""How a person or an init system stops `moss serve`: once in order, twice at once."""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

from serve_app.cli.guard import Guard
from serve_app.cli.terminal import Terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED_AT_ONCE = 130


class StopRequested(KeyboardInterrupt):
    """Raised in the main thread by the first signal, wherever it is."""


class StopSignals:
    """Within it, the first signal raises StopRequested; another ends everything at once."""

    def __init__(self, guard: Guard, terminal: Terminal) -> None:
        self._guard = guard
        self._terminal = terminal

    def __enter__(self) -> Self:
        for number in SIGNALS:
            signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def _request(self, number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, self._insist)
        self._terminal.say("stopping (once more to stop at once)")
        raise StopRequested

    def _insist(self, number: int, frame: FrameType | None) -> None:
        self._guard.end()
        os._exit(STOPPED_AT_ONCE)
