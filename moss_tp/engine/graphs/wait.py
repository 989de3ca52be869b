"""Waiting for a device without blocking in it, so that one that is stuck can be given up."""

import time
from collections.abc import Callable

SPIN_S = 50e-6  # waiting for longer than this, a thread sleeps between two looks
PAUSE_S = 20e-6  # Linux makes 70 µs of it


def poll(is_done: Callable[[], bool], check: Callable[[], None]) -> None:
    """Waits until `is_done`. `check` is called meanwhile, and raises to give up: so a device that
    is stuck holds no thread."""
    spin_until = time.perf_counter() + SPIN_S
    while not is_done():
        check()
        if time.perf_counter() > spin_until:
            time.sleep(PAUSE_S)


def wait_for(is_done: Callable[[], bool], limit_s: float) -> None:
    """Returns when `is_done`. Raises RuntimeError after `limit_s` seconds, or as it does."""
    start = time.monotonic()

    def check() -> None:
        waited = time.monotonic() - start
        if waited > limit_s:
            raise RuntimeError(f"the device has not ended a step for {waited:.1f} s")

    poll(is_done, check)
