"""How a server stops taking turns and lets the running ones end.

It counts turns and says when the rest must end; the exchange of each ends it with DrainingError.
It does not depend on Serve, and idle connections do not hold it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from serve_app.errors import DrainingError

END_S = 5  # for turns that were told to end: each gives its lease back to the store


class Drain:
    """The turns that run now. Draining begins once and does not end."""

    def __init__(self) -> None:
        self._num_running = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_over = asyncio.Event()
        self._on_begin: list[Callable[[], None]] = []
        self.is_draining = False
        self.is_refusing = False

    def begin(self, *, is_refusing: bool = True) -> int:
        """From now on new turns are refused, unless nobody sends any but those that are on their
        way already. Returns how many run."""
        self.is_refusing |= is_refusing
        if not self.is_draining:
            self.is_draining = True
            for call in self._on_begin:
                call()
        return self._num_running

    async def finish(self, within_s: float) -> int:
        """Waits until all turns have ended; tells those that run after `within_s` to end.

        Returns how many were told so.
        """
        self.begin()
        await self._wait_idle(within_s)
        num_cut = self._num_running
        self._is_over.set()
        await self._wait_idle(END_S)
        return num_cut

    async def wait_idle(self) -> None:
        """Returns when no turn runs."""
        await self._is_idle.wait()

    def on_begin(self, call: Callable[[], None]) -> None:
        """`call` is called when draining begins."""
        self._on_begin.append(call)

    async def takes_turns(self) -> bool:
        """A check of readiness."""
        return not self.is_refusing

    def check(self) -> None:
        """Raises DrainingError if no new turn is taken."""
        if self.is_refusing:
            raise DrainingError("the server is stopping and takes no new turn")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Counts a turn for the block. Raises DrainingError if no new turn is taken."""
        self.check()
        self._num_running += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._num_running -= 1
            if not self._num_running:
                self._is_idle.set()

    async def wait_over(self) -> None:
        """Returns when the running turns must end."""
        await self._is_over.wait()

    async def _wait_idle(self, within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._is_idle.wait()
