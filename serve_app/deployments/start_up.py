"""How long each phase of a replica's start took, and in which one it is."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.groups import GroupState
from serve_app.remote.loading import LoadingBoard

SAY_EVERY_S = 1.0
LOOK_EVERY_S = 0.1
END_S = 1.0


class StartUp:
    """`phases` are seconds by name, in their order; `current` is the innermost phase that goes on.
    `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.phases: dict[str, float] = {}
        self.current: str | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Around the phase `name`, whose time is what no phase within it takes."""
        began, inner = self._clock(), sum(self.phases.values())
        outer, self.current = self.current, name
        yield
        self.current = outer
        inner = sum(self.phases.values()) - inner
        self.phases[name] = self._clock() - began - inner


@contextmanager
def announced(store_url: str, group: Callable[[], GroupState]) -> Iterator[None]:
    """Says in the store for the length of the block that `group` loads, by a thread of its own:
    what loads leaves no event loop in this one."""
    is_over = threading.Event()
    announcing = threading.Thread(
        target=lambda: asyncio.run(_announce(store_url, group, is_over)),
        name="announce-start",
        daemon=True,
    )
    announcing.start()
    try:
        yield
    finally:
        is_over.set()
        announcing.join(END_S)


async def _announce(
    store_url: str, group: Callable[[], GroupState], is_over: threading.Event
) -> None:
    board = LoadingBoard(store_url)
    said, due = None, 0.0
    while not is_over.is_set():
        now = group()
        if now != said or time.monotonic() > due:
            said, due = now, time.monotonic() + SAY_EVERY_S
            await board.put(now)
        await asyncio.sleep(LOOK_EVERY_S)
    await board.put(None)
    await board.close()
