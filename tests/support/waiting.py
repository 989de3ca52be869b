"""Waits for something that another process, thread or task does."""

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.02
PATIENCE_S = 60.0  # however busy the machine is


def wait_until(is_true: Callable[[], bool], timeout_s: float) -> bool:
    """Polls `is_true`; whether it became true within the time."""
    deadline = time.monotonic() + timeout_s
    while not (result := is_true()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return result


async def until(is_true: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Returns when `is_true`, while other tasks of the loop run. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not is_true():
            await asyncio.sleep(POLL_S)
