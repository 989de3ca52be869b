"""Waiting for a device without blocking in it, so that one that is stuck can be given up."""

import time
from collections.abc import Callable

SPIN_S = 200e-6  # waiting for longer than this, the thread sleeps between two looks
PAUSE_S = 50e-6


def wait_for(is_done: Callable[[], bool], limit_s: float) -> None:
    """Returns when `is_done`. Raises RuntimeError after `limit_s` seconds, or as it does."""
    start = time.monotonic()
    while not is_done():
        waited = time.monotonic() - start
        if waited > limit_s:
            raise RuntimeError(f"the device has not ended a step for {waited:.1f} s")
        if waited > SPIN_S:
            time.sleep(PAUSE_S)
