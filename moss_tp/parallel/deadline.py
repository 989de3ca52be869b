"""Calls into torch's backends that may never return, with a deadline.

NCCL connects, and ends, by talking to peers and to the device. With a peer that is gone, a kernel
that never ends or a CUDA graph that is still alive, that can take for ever: `ncclCommAbort` waits
for the graphs that it was recorded in (vllm#39846, pytorch#115388), `ncclCommDestroy` for the peers
as well (pytorch#180611), torch's `abort` for its own thread, and gloo's destructor for a collective
that another thread is in.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from typing import TypeVar

from moss_tp.parallel.backends import Backend

R = TypeVar("R")
logger = logging.getLogger(__name__)

CLOSE_S = 3.0
_POLL_S = 0.001


def within(seconds: float, what: str, work: Callable[[], R]) -> R:
    """`work()`, run in a thread of its own, or what it raised. Raises RuntimeError if it takes
    longer; the thread is left behind then and does not keep the process alive."""
    results: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=run, name=f"moss-{what}", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise RuntimeError(f"{what} has taken more than {seconds:g} s")
    return results[0]


def poll(seconds: float, what: str, is_done: Callable[[], bool]) -> None:
    """Returns when `is_done()`; raises RuntimeError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} has taken more than {seconds:g} s")
        time.sleep(_POLL_S)


def end(
    backends: list[Backend], drops: Sequence[Callable[[], None]] = (), seconds: float = CLOSE_S
) -> None:
    """Ends backends to which `backends` holds the caller's last references, and empties the list;
    calls `drops` meanwhile, which let go of what a backend waits for.

    Takes no longer than `seconds`, whatever peers and devices do. What has not ended by then goes
    on in the background and ends with the process.
    """
    threads = [_started(drop) for drop in drops]
    while backends:
        held = [backends.pop()]  # the thread drops it: the destructor is what may hang
        threads.append(_started(partial(_end, held)))
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        logger.warning("a backend has not ended within %g s: left behind", seconds)


def _started(work: Callable[[], None]) -> Thread:
    thread = Thread(target=work, name="moss-end", daemon=True)
    thread.start()
    return thread


def _end(held: list[Backend]) -> None:
    try:
        # Also where nothing has failed: unlike `shutdown` it needs no peer, and no step is running.
        held[0].abort()
    except RuntimeError as error:
        logger.warning("a backend did not end: %s", error)
    held.clear()
