"""Lets suspects into the engine one by one: requests with which another group was lost.

One of them may be why. If it ends this group too, it is the only one of them that was given to the
engine and has no token yet; so all others, which are innocent, may be given to a third.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count

HOLD_S = 5.0  # a suspect that waits for blocks does not keep the others out for longer


class Turn:
    """Ends once: with the first token, or when it has taken too long."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end: Callable[[], None] | None = on_end

    def end(self) -> None:
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()


class SuspectGate:
    """Of one replica."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrivals = count()
        self._is_taken = False

    @asynccontextmanager
    async def turn(self, age_s: float | None) -> AsyncIterator[Turn]:
        """The oldest suspect first. Who is none, with an age of None, does not wait."""
        if age_s is None:
            yield Turn(lambda: None)
            return
        await self._enter(age_s)
        turn = Turn(self._leave)
        timer = asyncio.get_running_loop().call_later(HOLD_S, turn.end)
        try:
            yield turn
        finally:
            timer.cancel()
            turn.end()

    async def _enter(self, age_s: float) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        loop = asyncio.get_running_loop()
        entering = loop.create_future()
        heappush(self._waiting, (loop.time() - age_s, next(self._arrivals), entering))
        try:
            await entering
        except asyncio.CancelledError:
            if entering.done() and not entering.cancelled():
                self._leave()  # it was let in just now
            raise

    def _leave(self) -> None:
        while self._waiting:
            _, _, entering = heappop(self._waiting)
            if not entering.done():
                entering.set_result(None)
                return
        self._is_taken = False
