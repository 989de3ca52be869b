"""One turn of a session: take the lease, reply, commit, and only then report the end.

The terminal event comes after the turn is durable, a turn that fails or is cancelled before its
commit leaves no trace, and the lease is released in any case. A commit that is cancelled may have
stored the turn. The deadline bounds all of it. It does not depend on HTTP.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from math import inf

from moss_tp.errors import InvalidRequestError
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.events import Delta, Done, PluginCall, Thoughts, Usage
from serve_app.chat.reply import Replier
from serve_app.chat.request import ReplyRequest
from serve_app.errors import IdempotencyMismatchError, SessionFullError
from serve_app.sessions.lease import HeldLease, LeaseKeeper
from serve_app.sessions.opening import SessionOpener
from serve_app.sessions.session import Session, Turn, new_token
from serve_app.sessions.store import SessionStore

# A reply that its deadline ended has this much time to be stored.
COMMIT_S = 0.5


@dataclass(frozen=True)
class TurnRequest:
    """A turn that `owner` requests. `fingerprint` is a digest of what is asked.

    `max_length` bounds the prompt and everything generated, in tokens. `params` has n = 1. An
    unknown `uid`, or another owner's, starts a new chat.
    """

    owner: str
    user: str
    fingerprint: str
    params: SamplingParams
    enabled: frozenset[str]
    max_length: int
    uid: str | None = None
    idempotency_key: str | None = None
    max_time_s: float | None = None
    priority: int = 0


@dataclass(frozen=True)
class TurnDone:
    """The turn is stored and is the last one of `session`. A replayed turn has no usage."""

    session: Session
    usage: Usage

    @property
    def turn(self) -> Turn:
        return self.session.turns[-1]

    @property
    def done(self) -> Done:
        """The end of the reply, as a stateless request gets it."""
        turn = self.turn
        return Done(0, turn.finish_reason, self.usage, turn.dropped_turns, turn)


TurnEvent = Thoughts | PluginCall | Delta | TurnDone


@dataclass(frozen=True)
class TurnLimits:
    """Limits of every turn, whatever the client requests."""

    max_model_len: int
    max_turns: int = 500
    max_time_s: float = 300
    lease_renewal_s: float = 5


class TurnRunner:
    """Runs turns on a store and a Replier, and keeps the leases of those that run."""

    def __init__(self, store: SessionStore, replier: Replier, limits: TurnLimits) -> None:
        self._store = store
        self._replier = replier
        self._limits = limits
        self._leases = LeaseKeeper(store, limits.lease_renewal_s)
        self._sessions = SessionOpener(store, self._leases)

    async def run(
        self, request: TurnRequest, committing: asyncio.Event | None = None
    ) -> AsyncGenerator[TurnEvent]:
        """The events of the reply, with a TurnDone as the last one instead of a Done.

        A repeated Idempotency-Key yields only the TurnDone of its stored turn. Closing it before
        TurnDone cancels the turn; from when `committing` is set it may be stored all the same.
        Raises the errors of `serve_app.errors` and `Replier.reply`.
        """
        if request.params.n != 1:
            raise InvalidRequestError("n: a turn of a session has one reply")
        deadline = time.monotonic() + min(request.max_time_s or inf, self._limits.max_time_s)
        lease, opened = await self._sessions.open(
            request.owner, request.uid, request.idempotency_key, deadline
        )
        session = opened.session
        if not opened.is_leased:
            yield _replay(request, lease.key, session)
            return
        async with self._leases.hold(lease) as held:
            done: Done | None = None
            reply = self._replier.reply(self._reply_request(request, session, deadline))
            async with aclosing(reply) as events:
                async for event in events:
                    if isinstance(event, Done):
                        done = event
                    else:
                        yield event
            assert done is not None  # a reply that raises no error ends with one
            if committing is not None:
                committing.set()
            stored = await self._commit(held, session, _turn(request, lease.key, done), deadline)
        yield TurnDone(replace(session, turns=(*session.turns, stored)), done.usage)

    async def _commit(self, held: HeldLease, session: Session, turn: Turn, deadline: float) -> Turn:
        """The turn as it is stored, which ends the lease."""
        until = max(deadline, time.monotonic() + COMMIT_S)
        stored = await self._store.commit(held.lease, len(session.turns), turn, until)
        held.is_spent = True
        return stored

    def _reply_request(
        self, request: TurnRequest, session: Session, deadline: float
    ) -> ReplyRequest:
        """Raises SessionFullError if the session may have no more turns."""
        if len(session.turns) >= self._limits.max_turns:
            raise SessionFullError("the chat has as many turns as it may; start a new one")
        return ReplyRequest(
            request_id=new_token(),
            history=session.turns,
            user=request.user,
            params=request.params,
            enabled=request.enabled,
            max_length=min(request.max_length, self._limits.max_model_len),
            deadline=deadline,
            owner=request.owner,
            session_id=session.uid,
            priority=request.priority,
        )


def _turn(request: TurnRequest, key: str, done: Done) -> Turn:
    return Turn(
        **asdict(done.exchange),
        key=key,
        fingerprint=request.fingerprint,
        dropped_turns=done.dropped_turns,
        finish_reason=done.finish_reason,
    )


def _replay(request: TurnRequest, key: str, session: Session) -> TurnDone:
    """The stored turn of `key` with the turns before it, as it ended then."""
    index = next(i for i, turn in enumerate(session.turns) if turn.key == key)
    if session.turns[index].fingerprint != request.fingerprint:
        raise IdempotencyMismatchError("this Idempotency-Key was used with another body")
    return TurnDone(replace(session, turns=session.turns[: index + 1]), Usage())
