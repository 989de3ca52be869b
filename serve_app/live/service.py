"""Live turns: they run whoever is connected, are followed from any ingress, and outlive their own.

start ──> Teller ──> store ──> Follower ──> readers, here and elsewhere
            ^          │
            └─ Patrol <┘  turns that nobody tells
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    suppress,
)
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from moss_tp.errors import EngineDeadError, InvalidRequestError
from serve_app.access.gate import Admission, Ticket
from serve_app.chat.draft import Draft
from serve_app.chat.resume import TurnTakenOverError
from serve_app.chat.turn import TurnLimits, TurnRequest, make_draft, replay
from serve_app.errors import SessionNotFoundError, TurnNotFoundError, TurnNotStoredError
from serve_app.live.crew import Crew, Stop
from serve_app.live.event import LiveEvent, Telling
from serve_app.live.follower import Follower
from serve_app.live.patrol import PERIOD_S, Patrol
from serve_app.live.record import Hold, LiveTurn
from serve_app.live.replay import Replayed, Replays
from serve_app.live.store import Ask, Cancel, GivenUp, TakenUp
from serve_app.live.tail import Tail
from serve_app.live.teller import Means, Teller, retold
from serve_app.live.writer import EventWriter
from serve_app.prompt.fit import Prompt
from serve_app.sessions.lease import LeaseKeeper
from serve_app.sessions.opening import SessionOpener
from serve_app.sessions.session import Session, Turn, new_token

# The numbers of a stored turn that is told anew lie above those of any live turn, so that a reader
# who comes back with one is not mistaken for one of the live turn.
RETOLD_FROM = 1_000_000
CANCEL_WAIT_S = 10.0

Admit = Callable[[int], AbstractAsyncContextManager[Admission]]


@dataclass(frozen=True)
class Started:
    """A turn that runs, or that a repeated key has found; `teller` is None if not by this call."""

    uid: str
    id: str
    teller: Teller | None = None

    @property
    def failure(self) -> Exception | None:
        """Why the turn has failed, if it has, and was told here."""
        return self.teller.failure if self.teller else None


class LiveTurns:
    """The turns of one ingress, which end or are handed over when it stops."""

    def __init__(
        self,
        means: Means,
        limits: TurnLimits,
        stop: Stop | None = None,
        period_s: float = PERIOD_S,
    ) -> None:
        self._means = means
        self._limits = limits
        self._stop = stop
        self._leases = LeaseKeeper(means.sessions, limits.lease_renewal_s)
        self._sessions = SessionOpener(means.sessions, self._leases)
        self._writer = EventWriter(means.store)
        self._follower = Follower(means.store, self._writer.pens)
        self._patrol = Patrol(means.store, self._writer.pens, self.take_up, means.made, period_s)
        self._crew = Crew(means, self._writer, self._follower, stop)
        self._replays = Replays(means.replier, means.make_up, limits.max_time_s)
        self._leaving: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begins to look for turns that nobody tells, until the process stops.

        Needs a running event loop.
        """
        self._patrol.start()
        if self._stop is not None:
            self._stop.on_begin(self._begin_to_leave)

    async def close(self) -> None:
        """Leaves all turns as they are, to be taken up elsewhere or later."""
        await self._patrol.stop()
        if self._leaving is not None:
            self._leaving.cancel()
            await asyncio.gather(self._leaving, return_exceptions=True)
        await self._crew.close()
        await self._writer.stop()
        await self._follower.stop()

    def _begin_to_leave(self) -> None:
        self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        """Hands all turns over: what has not ended when time is over, for whoever starts next.

        If the server refuses turns and another ingress stays, at once. But where Serve replaces
        this ingress, those that stay may soon be of another make-up.
        """
        assert self._stop is not None
        if await self._patrol.leave() == 0 or not self._stop.is_refusing:
            await self._stop.wait_over()
        await self._patrol.leave_turns()
        await self._crew.hand_over()

    async def start(self, request: TurnRequest, admit: Admit | None = None) -> Started:
        """Starts a turn, which then runs by itself. A repeated Idempotency-Key starts none.

        Raises SessionNotFoundError, the errors of `SessionStore.begin`, `make_draft` and `replay`,
        ContextLengthError, and what `admit` raises, which is entered around the turn with the
        number of its prompt's tokens.
        """
        if request.params.n != 1:
            raise InvalidRequestError("n: a turn of a session has one reply")
        deadline = time.monotonic() + min(request.max_time_s or inf, self._limits.max_time_s)
        lease, opened = await self._sessions.open(
            request.owner, request.uid, request.idempotency_key, deadline, must_exist=True
        )
        if not opened.is_leased:
            return Started(lease.uid, replay(request, opened.session).turn.id)
        async with self._leases.hold(lease) as held, AsyncExitStack() as stack:
            draft = make_draft(request, lease.key, opened.session, self._limits, deadline)
            prompt = await self._means.replier.prompt(draft.request)
            made_by = await self._means.made_by()
            charge = None
            if admit is not None:
                charge = await stack.enter_async_context(admit(len(prompt.token_ids)))
            ticket = None if charge is None else charge.ticket
            record = _record(draft, prompt, made_by, ticket)
            hold = Hold(record, new_token())
            first = _first(record)
            try:
                await self._means.store.start(hold, lease, first, deadline)
            except TurnTakenOverError as error:  # this process stood still for too long
                raise TurnNotStoredError("another turn of the session has begun") from error
            except BaseException:
                if charge is not None:
                    charge.is_left = True  # it may have begun: who takes it up settles that
                raise
            held.is_spent = True
            tail = Tail(lease.uid, lease.owner, hold.turn.id, [LiveEvent(0, first)])
            teller = self._crew.tell(hold, tail, opened.session, deadline, stack, charge)
        return Started(lease.uid, hold.turn.id, teller)

    async def regenerate(
        self, request: TurnRequest, turn_id: str, admit: Admit | None = None
    ) -> Started:
        """Starts another turn in the place of `turn_id`, with the same user's text.

        Raises what `start` raises, and TurnNotFoundError.
        """
        turn = await self._find(str(request.uid), request.owner, turn_id)
        return await self.start(replace(request, user=turn.user, parent=turn.parent), admit)

    async def take_up(self, uid: str, turn_id: str) -> None:
        """Tells a turn that nobody tells, if there is one of that id."""
        token = new_token()
        error = EngineDeadError("the turn was given up after several tries")
        given_up = Telling("error", self._means.describe(error))
        made = await self._means.made()
        taken = await self._means.store.take_up(uid, turn_id, token, given_up, made)
        if isinstance(taken, GivenUp):
            await self._settle(taken)
        if not isinstance(taken, TakenUp):
            return
        turn = taken.hold.turn
        session = await self._load(uid, turn.owner)
        tail = self._follower.shared(uid, turn_id) or Tail(uid, turn.owner, turn_id)
        tail.add(taken.events)
        if tail.has_ended:
            return
        async with AsyncExitStack() as stack:
            charge = await self._readmit(turn.ticket, stack)
            self._crew.tell(taken.hold, tail, session, taken.deadline, stack, charge, taken)

    async def _readmit(self, ticket: Ticket | None, stack: AsyncExitStack) -> Admission | None:
        """The admission of a turn that was admitted elsewhere, if it has one."""
        readmit = self._means.readmit
        if ticket is None or readmit is None:
            return None
        return await stack.enter_async_context(readmit(ticket))

    async def _settle(self, turn: GivenUp) -> None:
        async with AsyncExitStack() as stack:
            if (charge := await self._readmit(turn.ticket, stack)) is not None:
                charge.num_tokens += turn.num_generated

    async def follow(
        self, uid: str, owner: str, turn_id: str, after: int = -1
    ) -> AsyncGenerator[LiveEvent] | None:
        """The turn's events after number `after`, up to the terminal one; None if that was told.

        A turn that is stored and no longer live is told anew. Raises SessionNotFoundError and
        TurnNotFoundError.
        """
        if after < RETOLD_FROM:
            tail = await self._follower.find(Ask(uid, owner, turn_id))
            if tail is not None:
                has_all = tail.has_ended and after >= len(tail.events) - 1
                return None if has_all else self._follower.read(tail, after + 1)
        turn = await self._find(uid, owner, turn_id)
        events = [LiveEvent(n, t) for n, t in enumerate(retold(turn), RETOLD_FROM) if n > after]
        return _each(events) if events else None

    async def running(self, uid: str, owner: str) -> str | None:
        """The id of the turn that runs on the owner's session and can be followed, if one does."""
        return await self._means.store.running(uid, owner)

    async def cancel(self, uid: str, owner: str, turn_id: str, *, keep: bool) -> LiveEvent | None:
        """Ends a running turn; its terminal event, if that comes soon.

        One that is stored already stays as it is. Raises SessionNotFoundError and
        TurnNotFoundError.
        """
        cancel: Cancel = "keep" if keep else "drop"
        if stands := await self._means.store.cancel(Ask(uid, owner, turn_id), cancel):
            self._crew.cancel(turn_id, stands)
        if (events := await self.follow(uid, owner, turn_id)) is None:
            return None
        last = None
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT_S), aclosing(events):
                async for event in events:
                    last = event
        return last if last is not None and last.telling.is_terminal else None

    async def replay(self, uid: str, turn_id: str) -> Replayed:
        """Makes a stored turn again, whoever owns it. Raises SessionNotFoundError, and what
        `Replays.replay` raises."""
        owner = await self._means.store.owner_of(uid)
        if owner is None:
            raise SessionNotFoundError
        return await self._replays.replay(await self._load(uid, owner), turn_id)

    async def _find(self, uid: str, owner: str, turn_id: str) -> Turn:
        """A stored turn. Raises SessionNotFoundError and TurnNotFoundError."""
        turn = await self._means.sessions.load_turn(uid, owner, turn_id)
        if turn is None:
            raise TurnNotFoundError("the session has no such turn")
        return turn

    async def _load(self, uid: str, owner: str) -> Session:
        session = await self._means.sessions.load(uid, owner)
        if session is None:
            raise SessionNotFoundError
        return session


def _first(turn: LiveTurn) -> Telling:
    """What a reader knows a turn by that did not start it."""
    data = {"id": turn.id, "uid": turn.uid, "parent": turn.parent or None, "user": turn.user}
    return Telling("turn", data)


def _record(
    draft: Draft, prompt: Prompt, made_by: Mapping[str, Any], ticket: Ticket | None
) -> LiveTurn:
    request = draft.request
    return LiveTurn(
        uid=draft.session.uid,
        owner=request.owner,
        id=request.request_id,
        key=draft.key,
        fingerprint=draft.fingerprint,
        user=request.user,
        parent=draft.history[-1].id if draft.history else "",
        num_turns=len(draft.session.tree),
        prompt_ids=tuple(prompt.token_ids),
        num_shared_tokens=prompt.num_shared_tokens,
        dropped_turns=prompt.dropped_turns,
        params=request.params,
        enabled=tuple(sorted(request.enabled)),
        max_length=request.max_length,
        priority=request.priority,
        max_completion_tokens=request.max_completion_tokens,
        made_by=made_by,
        ticket=ticket,
        started_ms=round(draft.began_s * 1000),
    )


async def _each(events: list[LiveEvent]) -> AsyncGenerator[LiveEvent]:
    for event in events:
        yield event
