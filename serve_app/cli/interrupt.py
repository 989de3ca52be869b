"""A Ctrl-C while a command still imports and checks: a KeyboardInterrupt that cannot get lost.

Libraries swallow exceptions that are raised in their callbacks, and this one may be raised there.
A command that is about to start something asks once more.
"""

import signal
import threading
from types import FrameType

_has_come = threading.Event()


def remember_interrupts() -> None:
    """Call it first, in the main thread."""
    signal.signal(signal.SIGINT, _receive)


def check_interrupts() -> None:
    """Raises KeyboardInterrupt if a Ctrl-C has come."""
    if _has_come.is_set():
        raise KeyboardInterrupt


def _receive(number: int, frame: FrameType | None) -> None:
    _has_come.set()
    raise KeyboardInterrupt
