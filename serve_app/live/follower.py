"""Follows turns for the readers of this ingress, whoever tells them.

Turns that are told here need nothing. The others, and whether any turn is to be cancelled, are
asked for in one round trip every 50 ms, over one connection. If one is, all own turns are asked for
how they stand; else those that have written nothing for half a second.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing
from math import inf

from moss_tp.errors import MossError
from serve_app.live.event import LiveEvent
from serve_app.live.store import Ask, LiveStore
from serve_app.live.tail import Tail
from serve_app.live.writer import Pen

logger = logging.getLogger(__name__)

INTERVAL_S = 0.05
STAND_EVERY_S = 0.5
RETRY_S = 0.5


class Follower:
    """`pens` are those of the turns that are told here."""

    def __init__(
        self, store: LiveStore, pens: Collection[Pen], interval_s: float = INTERVAL_S
    ) -> None:
        self._store = store
        self._pens = pens
        self._interval_s = interval_s
        self._tails: dict[tuple[str, str], Tail] = {}
        self._num_cancels: int | None = None
        self._task: asyncio.Task[None] | None = None

    def track(self, tail: Tail) -> None:
        """Readers of this turn share `tail` from now on."""
        self._tails[tail.uid, tail.id] = tail
        self._keep_polling()

    def forget(self, tail: Tail) -> None:
        """Unless somebody tells or reads it here."""
        key = tail.uid, tail.id
        if self._tails.get(key) is tail and not (tail.is_told_here or tail.num_readers):
            del self._tails[key]

    def shared(self, uid: str, turn_id: str) -> Tail | None:
        """The tail that this turn's readers have, if it has some here."""
        tail = self._tails.get((uid, turn_id))
        return None if tail is None or tail.is_closed else tail

    async def find(self, ask: Ask, deadline: float = inf) -> Tail | None:
        """The turn's tail, if there is such a turn; with all events that are stored by now."""
        known = self._known(ask)
        start = 0 if known is None else len(known.events)
        events = await self._store.read(Ask(ask.uid, ask.owner, ask.id, start), deadline)
        if known is None:
            return None if events is None else Tail(ask.uid, ask.owner, ask.id, events)
        if events is None:  # deleted
            known.close()
            return None
        if not known.is_told_here:
            known.add(events)
        return known

    async def read(self, tail: Tail, start: int) -> AsyncGenerator[LiveEvent]:
        """The events from number `start` on, up to the terminal one, as they are stored.

        Since `tail` was found, others may have come, and share another one.
        """
        tail = self.shared(tail.uid, tail.id) or tail
        self.track(tail)
        try:
            async with aclosing(tail.read(start)) as events:
                async for event in events:
                    yield event
        finally:
            self.forget(tail)

    def _known(self, ask: Ask) -> Tail | None:
        """The tail that readers of a running turn share. Only the store knows what has ended, and
        what is still there."""
        tail = self._tails.get((ask.uid, ask.id))
        if tail is None or tail.owner != ask.owner or tail.has_ended or tail.is_closed:
            return None
        return tail

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _keep_polling(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Ends when nobody tells or reads any more."""
        while self._tails:
            began = time.monotonic()
            pause_s = self._interval_s if await self._poll() else RETRY_S
            await asyncio.sleep(max(0.0, began + pause_s - time.monotonic()))

    async def _poll(self) -> bool:
        """Whether the store answered."""
        tails = [t for t in self._tails.values() if not (t.is_told_here or t.has_ended)]
        if not (tails or self._pens):
            return True
        before = time.monotonic() - STAND_EVERY_S
        try:
            num_cancels = await self._ask(tails, [p for p in self._pens if p.stood_at <= before])
            if num_cancels != self._num_cancels:
                await self._ask([], self._pens)
                self._num_cancels = num_cancels
        except Exception as error:
            bug = None if isinstance(error, MossError) else error
            logger.warning("readers of %s turns wait: %s", len(tails), error, exc_info=bug)
            return False
        return True

    async def _ask(self, tails: Sequence[Tail], pens: Iterable[Pen]) -> int:
        """One round trip."""
        pens = [pen for pen in pens if not pen.is_lost]
        asks = [Ask(tail.uid, tail.owner, tail.id, len(tail.events)) for tail in tails]
        polled = await self._store.poll(asks, [pen.hold for pen in pens])
        for tail, events in zip(tails, polled.answers, strict=True):
            if events is None:
                tail.close()
            elif not tail.is_told_here:  # it may have been taken up meanwhile
                tail.add(events)
        for pen, standing in zip(pens, polled.standings, strict=True):
            pen.note(standing)
        return polled.num_cancels
