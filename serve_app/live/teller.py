"""Tells one turn: runs its reply, writes the events, stores the turn, and only then its end.

It holds the turn while it does. When another ingress has taken that up, it stops and leaves
everything as it is; so it does when the store is away, for then somebody takes the turn up later.
It does not know how turns start.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

from moss_tp.errors import DeadlineExceededError, EngineDeadError
from serve_app.access.gate import Admission, Ticket
from serve_app.chat.draft import Draft
from serve_app.chat.events import Done, Usage
from serve_app.chat.reply import Replier
from serve_app.chat.resume import TurnTakenOverError
from serve_app.chat.turn import MakeUp
from serve_app.errors import (
    LeaseLostError,
    StoreUnavailableError,
    TurnCancelledError,
    TurnNotStoredError,
)
from serve_app.live.event import LiveEvent, Telling, plain, telling_of
from serve_app.live.record import digest_of
from serve_app.live.store import MAX_TAKE_UPS, Cancel, LiveStore, Standing
from serve_app.live.writer import Pen
from serve_app.sessions.session import Turn
from serve_app.sessions.store import SessionStore

logger = logging.getLogger(__name__)

# A replica that was lost may be back, or another one be free.
ENGINE_PAUSE_S = 1.0
# For the end of a turn that has used up its time.
END_S = 5.0


Readmit = Callable[[Ticket], AbstractAsyncContextManager[Admission]]


class OtherMakeUpError(EngineDeadError):
    """Nobody goes on with the turn to the same bytes."""


@dataclass(frozen=True)
class Means:
    """What all tellers use. `describe` makes an error the data of an event, `readmit` goes on with
    an admission that was made elsewhere."""

    store: LiveStore
    sessions: SessionStore
    replier: Replier
    describe: Callable[[Exception], Mapping[str, Any]]
    make_up: MakeUp | None = None
    readmit: Readmit | None = None

    async def made_by(self) -> Mapping[str, Any]:
        """What makes replies here; empty while nobody knows."""
        return {} if self.make_up is None else await self.make_up.make_up()

    async def made(self) -> str:
        """A digest of that."""
        return digest_of(await self.made_by())


class Teller:
    """Tells the turn that `draft` is of, with `pen`, which has told what the draft resumes.

    `attempt` counts the tellers before it. The turn `is_stale` if its session has gone on.
    """

    def __init__(
        self, means: Means, draft: Draft, pen: Pen, attempt: int = 0, is_stale: bool = False
    ) -> None:
        self._means = means
        self._draft = replace(draft, request=replace(draft.request, stop=asyncio.Event()))
        self.pen = pen
        self._attempt = attempt
        self._is_stale = is_stale
        self._work: asyncio.Task[None] | None = None
        self._is_dropped = self._is_leaving = self._is_committing = self._is_stored = False
        self.failure: Exception | None = None
        self.has_ended = False  # here: its terminal event is stored
        self._usage: Usage | None = None

    @property
    def turn_id(self) -> str:
        return self.pen.hold.turn.id

    @property
    def num_tokens(self) -> int:
        """How many tokens the turn has used so far, prompt and reply together."""
        if self._usage is not None:
            return self._usage.num_tokens
        return len(self.pen.hold.turn.prompt_ids) + self._draft.request.meter.num_tokens

    async def run(self) -> None:
        """Cancelling it leaves the turn as if this process had died."""
        try:
            await self._run()
        except LeaseLostError:
            self.pen.lose()
        except StoreUnavailableError as error:
            logger.warning("a turn is left to whoever takes it up: %s", error)
            self.pen.lose()

    def note(self, standing: Standing) -> None:
        """Stops the work if the turn is somebody else's now, or a client cancels it."""
        if not standing.is_held:
            self._abort()
        elif standing.cancel:
            self.cancel(standing.cancel)

    def cancel(self, cancel: Cancel) -> None:
        """Ends the turn as a client wants, unless it is at its end already, or was at it before an
        earlier teller died."""
        if self._is_committing or self._is_dropped or self._stored() is not None:
            return
        assert self._draft.request.stop is not None
        self._draft.request.stop.set()
        if cancel == "drop" or not self.pen.has_told:
            self._is_dropped = True
            self._abort()

    async def hand_over(self) -> None:
        """Leaves the turn to another ingress, at once; one that is at its end ends here."""
        if self._is_committing or self._is_dropped:
            return
        self._is_leaving = True
        self._abort()
        if self._work is not None:
            await asyncio.wait({self._work})

    def _abort(self) -> None:
        if self._work is not None and not self._is_committing:
            self._work.cancel()

    async def _run(self) -> None:
        self._work = asyncio.create_task(self._tell())
        if self._is_dropped or self._is_leaving or self.pen.is_lost:  # before it could begin
            self._work.cancel()
        try:
            await asyncio.wait({self._work})
        except asyncio.CancelledError:
            self._is_committing = False
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            raise
        await self._end_work(self._work)

    async def _end_work(self, work: "asyncio.Task[None]") -> None:
        """What follows when the work has ended, well or not."""
        if self.pen.is_lost:
            raise TurnTakenOverError("another ingress tells this turn")
        if work.cancelled():
            if self._is_leaving and not self._is_dropped:
                await self._leave(0, is_failure=False)
            else:
                await self._fail(TurnCancelledError("the turn was cancelled"))
            return
        error = work.exception()
        if isinstance(error, LeaseLostError | StoreUnavailableError):
            raise error
        is_open = self._is_committing and isinstance(error, DeadlineExceededError)
        if error is not None and (self._is_stored or is_open):  # it is no failure of the turn
            raise StoreUnavailableError("the end of a turn could not be stored") from error
        is_passing = isinstance(error, EngineDeadError) and not isinstance(error, OtherMakeUpError)
        if is_passing and self._attempt < MAX_TAKE_UPS:
            await self._leave(ENGINE_PAUSE_S, is_failure=True)
        elif isinstance(error, Exception):
            await self._fail(error)

    async def _tell(self) -> None:
        if (stored := self._stored()) is None:
            await self._check()
            stored = await self._reply()
        self._is_committing = self._is_stored = True
        self._usage = Usage(**stored.usage)
        await self._end(done_telling(stored))

    async def _reply(self) -> Turn:
        """The turn, which is stored before its reply ends: who watches that counts it once,
        wherever it is stored."""
        stored: Turn | None = None
        async with aclosing(self._means.replier.reply(self._draft.request)) as events:
            async for event in events:
                self._draft.add(event)
                if not isinstance(event, Done):
                    self.pen.put(telling_of(event))
                else:
                    await self._flush()
                    stored = await self._commit()
        assert stored is not None  # a reply that raises no error ends with a Done
        return stored

    async def _check(self) -> None:
        """Raises TurnNotStoredError if the turn's session has gone on without it, OtherMakeUpError
        if it would not go on to the same bytes, and EngineDeadError if nobody knows that yet."""
        if self._is_stale:
            raise TurnNotStoredError("another turn of the session was started meanwhile")
        begun_by = digest_of(self.pen.hold.turn.made_by)
        if begun_by == "":
            return
        made = await self._means.made()
        if made == "":
            raise EngineDeadError("no replica says whether it is what began the turn")
        if made != begun_by:
            raise OtherMakeUpError("the turn was begun by another version of the server")

    def _stored(self) -> Turn | None:
        """The turn, if an earlier teller has committed it."""
        turn_id = self._draft.request.request_id
        return next((turn for turn in self._draft.session.tree if turn.id == turn_id), None)

    async def _commit(self) -> Turn:
        means, hold = self._means, self.pen.hold
        made_by = hold.turn.made_by or await means.made_by()
        self._is_committing = True
        turn = self._draft.turn(made_by)
        stored = await means.sessions.commit(hold.lease, hold.turn.num_turns, turn, self._until)
        self._is_stored = True  # now: nothing that follows is a failure of the turn
        return stored

    async def _fail(self, error: Exception) -> None:
        self.failure = error
        await self._end(Telling("error", self._means.describe(error)))

    async def _end(self, last: Telling) -> None:
        """The terminal event: stored, then told."""
        await self._flush()
        number = self.pen.next_number
        await self._means.store.end(self.pen.hold, number, last, self._until)
        self.has_ended = True
        self.pen.tail.add([LiveEvent(number, last)])

    async def _leave(self, pause_s: float, is_failure: bool) -> None:
        await self._flush()
        await self._means.store.hand_over(self.pen.hold, pause_s, is_failure)
        self.pen.lose()

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                await self.pen.flush()
        except TimeoutError as error:
            raise StoreUnavailableError("the store has not taken the events of a turn") from error

    @property
    def _until(self) -> float:
        return max(self._draft.request.deadline, time.monotonic() + END_S)


def done_telling(turn: Turn) -> Telling:
    """The end of a turn that is stored."""
    data = {
        "turn": plain(asdict(turn)),
        "finish_reason": turn.finish_reason,
        "usage": dict(turn.usage),
    }
    return Telling("done", data)


def retold(turn: Turn) -> tuple[Telling, Telling, Telling]:
    """A stored turn, told anew."""
    return Telling("reset", {}), Telling("delta", {"text": turn.reply}), done_telling(turn)
