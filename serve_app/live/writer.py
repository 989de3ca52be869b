"""Writes the events of all turns that this ingress tells: at most one round trip every 40 ms.

    put ─> pending ─> sent, to the store ─> stored: readers are told

An event is told only after it is stored. Events that may have been stored are sent again as they
were, so that a number never stands for two of them. It does not know where events come from.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from math import inf

from moss_tp.errors import MossError
from serve_app.chat.resume import TurnTakenOverError
from serve_app.live.event import LiveEvent, Telling, joined, pack
from serve_app.live.record import Hold
from serve_app.live.store import Append, LiveStore, Standing
from serve_app.live.tail import Tail

logger = logging.getLogger(__name__)

INTERVAL_S = 0.04
RETRY_S = 0.5  # after a write that failed
# A turn with more events than this writes them rarely, which bounds what a turn can have.
MANY_EVENTS = 2000
SLOWER = 10


class Pen:
    """Writes the events of one turn, while `hold` is good.

    `on_standing` is called when that is lost, and with what a client has asked for, maybe often.
    """

    def __init__(
        self,
        hold: Hold,
        tail: Tail,
        wake: Callable[[], None],
        on_standing: Callable[[Standing], None],
    ) -> None:
        self.hold = hold
        self.tail = tail
        self.stood_at = -inf  # when it was last known how the hold stands
        self._wake = wake
        self._on_standing = on_standing
        self._pending: list[Telling] = []
        self._sent: list[Telling] = []
        self._flushed: asyncio.Future[None] | None = None
        self._due = 0.0
        self.is_lost = False

    @property
    def next_number(self) -> int:
        """The number of the next event that is put, when all of them are stored."""
        return len(self.tail.events)

    @property
    def has_told(self) -> bool:
        """Whether there is text of a reply, stored or not."""
        tellings = [event.telling for event in self.tail.events]
        return any(t.text for t in (*tellings, *self._sent, *self._pending))

    def put(self, telling: Telling) -> None:
        """Raises TurnTakenOverError."""
        if self.is_lost:
            raise TurnTakenOverError("another ingress tells this turn")
        if telling.kind == "delta" and self._pending and self._pending[-1].kind == "delta":
            self._pending[-1] = joined(self._pending[-1], telling)
        else:
            self._pending.append(telling)
        self._wake()

    async def flush(self) -> None:
        """Returns when all that was put is stored. Raises TurnTakenOverError."""
        while self._pending or self._sent:
            self._due = 0.0
            if self._flushed is None:
                self._flushed = asyncio.get_running_loop().create_future()
            self._wake()
            await asyncio.shield(self._flushed)
        if self.is_lost:
            raise TurnTakenOverError("another ingress tells this turn")

    @property
    def has_work(self) -> bool:
        """A delta without text waits for the next one, unless somebody waits for it."""
        has_text = any(t.kind != "delta" or t.text for t in self._pending)
        return bool(self._sent or has_text or (self._pending and self._flushed))

    def is_due(self, now: float) -> bool:
        return self.has_work and (now >= self._due or bool(self._sent))

    def take(self) -> Append:
        """What is to be written now; after a write that failed, the same again."""
        if not self._sent:
            self._sent, self._pending = self._pending, []
        is_long = self.next_number > MANY_EVENTS
        self._due = time.monotonic() + (SLOWER * INTERVAL_S if is_long else 0.0)
        return Append(self.hold, self.next_number, tuple(map(pack, self._sent)))

    def settle(self, standing: Standing) -> None:
        """What was taken is stored, or the hold is lost."""
        sent, self._sent = self._sent, []
        if standing.is_held and not self.is_lost:
            self.tail.add(LiveEvent(n, t) for n, t in enumerate(sent, self.next_number))
        self.note(standing)
        if self._flushed is not None and not (self._pending and not self.is_lost):
            self._flushed.set_result(None)
            self._flushed = None

    def note(self, standing: Standing) -> None:
        """How the hold stands now."""
        self.stood_at = time.monotonic()
        if self.is_lost:
            return
        if not standing.is_held:
            self.lose()
        if standing != Standing(True):
            self._on_standing(standing)

    def lose(self) -> None:
        """From now on somebody else tells the turn."""
        self.is_lost = True
        self.tail.put_down(self)
        self._pending.clear()
        if self._flushed is not None and not self._sent:
            self._flushed.set_result(None)
            self._flushed = None


class EventWriter:
    """Writes for all pens that are open."""

    def __init__(self, store: LiveStore, interval_s: float = INTERVAL_S) -> None:
        self._store = store
        self._interval_s = interval_s
        self._has_work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.pens: set[Pen] = set()

    def open(self, hold: Hold, tail: Tail, on_standing: Callable[[Standing], None]) -> Pen:
        """A pen that goes on at the end of `tail`."""
        tail.pen = pen = Pen(hold, tail, self._has_work.set, on_standing)
        self.pens.add(pen)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return pen

    def close(self, pen: Pen) -> None:
        """What it has not written is dropped."""
        pen.tail.put_down(pen)
        self.pens.discard(pen)

    async def stop(self) -> None:
        """Writes nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            began = time.monotonic()
            pause_s = self._interval_s if await self._write() else RETRY_S
            await asyncio.sleep(max(0.0, began + pause_s - time.monotonic()))
            if any(pen.has_work for pen in self.pens):
                self._has_work.set()

    async def _write(self) -> bool:
        """One round trip for all that is due; whether the store took it."""
        now = time.monotonic()
        due = [pen for pen in self.pens if pen.is_due(now)]
        if not due:
            return True
        try:
            standings = await self._store.append([pen.take() for pen in due])
        except Exception as error:
            bug = None if isinstance(error, MossError) else error
            logger.warning("events of %s turns wait: %s", len(due), error, exc_info=bug)
            return False
        for pen, standing in zip(due, standings, strict=True):
            pen.settle(standing)
        return True
