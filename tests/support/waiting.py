"""Waits for something that another process or thread does."""

import time
from collections.abc import Callable

POLL_S = 0.02


def wait_until(is_true: Callable[[], bool], timeout_s: float) -> bool:
    """Polls `is_true`; whether it became true within the time."""
    deadline = time.monotonic() + timeout_s
    while not (result := is_true()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return result
