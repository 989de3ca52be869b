"""Waiting for what another process or thread brings about."""

import time
from collections.abc import Callable


def wait_until(is_true: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it has come true within the time."""
    deadline = time.monotonic() + timeout_s
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_true()
