"""How a person or an init system stops `moss serve`: once in order, twice at once.

The first signal is only noted, and acted on where the server asks. An exception from the handler
would now and then come up in a callback of Ray's, which swallows it, or tear a clean-up apart.
"""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

from serve_app.cli.terminal import Terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED_AT_ONCE = 130


class StopRequested(BaseException):
    """It is time to stop, which is nobody's error."""


class StopSignals:
    """Within it, the first signal makes `check` raise; another ends everything at once."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._is_asked = False

    def check(self) -> None:
        """Raises StopRequested once a signal has come. To be called often."""
        if self._is_asked:
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
        if self._is_asked:
            os._exit(STOPPED_AT_ONCE)  # what is left is the guard's, who sees us go
        self._is_asked = True
        self._terminal.say("stopping (once more to stop at once)")
