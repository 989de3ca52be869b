"""The events of one turn as far as this ingress knows them, for all of its readers at once."""

import asyncio
from collections.abc import AsyncGenerator, Iterable

from serve_app.errors import SessionNotFoundError
from serve_app.live.event import LiveEvent


class Tail:
    """Grows at its end, by events that are stored. `is_told_here` says who adds them: the turn's
    teller, once a write by its `pen` is acknowledged, or the follower, who asks the store.
    """

    def __init__(
        self, uid: str, owner: str, turn_id: str, events: Iterable[LiveEvent] = ()
    ) -> None:
        self.uid, self.owner, self.id = uid, owner, turn_id
        self.events: list[LiveEvent] = [*events]
        self.pen: object | None = None
        self.is_closed = False
        self.num_readers = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_told_here(self) -> bool:
        return self.pen is not None

    def put_down(self, pen: object) -> None:
        """Its events no longer come from `pen`, unless that was another one's place already."""
        if self.pen is pen:
            self.pen = None

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1].telling.is_terminal

    def add(self, events: Iterable[LiveEvent]) -> None:
        """Takes the next events; those that it has already are skipped."""
        new = [event for event in events if event.number >= len(self.events)]
        assert [event.number for event in new] == [
            *range(len(self.events), len(self.events) + len(new))
        ], "a gap between events"
        self.events += new
        if new:
            self._wake()

    def close(self) -> None:
        """There will be no more events: the turn or its session is gone. Readers end."""
        self.is_closed = True
        self._wake()

    async def read(self, start: int) -> AsyncGenerator[LiveEvent]:
        """The events from number `start` on, up to the terminal one.

        Raises SessionNotFoundError if the turn's session is deleted meanwhile.
        """
        self.num_readers += 1
        try:
            while True:
                while start < len(self.events):
                    yield self.events[start]
                    start += 1
                if self.has_ended:
                    return
                if self.is_closed:
                    raise SessionNotFoundError
                changed = asyncio.get_running_loop().create_future()
                self._waiting.append(changed)
                await changed
        finally:
            self.num_readers -= 1

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)
