"""One turn of a session: take the lease, reply, commit, and only then report the end.

The terminal event comes after the turn is durable, a turn that fails or is cancelled before its
commit leaves no trace, and the lease is released in any case. A commit that is cancelled may have
stored the turn. The deadline bounds all of it. It does not depend on HTTP.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Protocol

from moss_tp.errors import InvalidRequestError
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.draft import Draft, seed_of
from serve_app.chat.events import Delta, Done, PluginCall, Thoughts, Usage
from serve_app.chat.reply import Replier
from serve_app.chat.request import Meter, ReplyRequest
from serve_app.chat.resume import TimedOutput, pack_output, unpack_output
from serve_app.errors import (
    IdempotencyMismatchError,
    SessionFullError,
    TurnNotFoundError,
    TurnNotStoredError,
)
from serve_app.sessions.lease import HeldLease, LeaseKeeper
from serve_app.sessions.opening import SessionOpener
from serve_app.sessions.session import Session, Turn, new_token
from serve_app.sessions.store import Lease, SessionStore
from serve_app.sessions.tree import path_to

# A reply that its deadline ended has this much time to be stored.
COMMIT_S = 0.5


@dataclass(frozen=True)
class TurnRequest:
    """A turn that `owner` requests. `fingerprint` is a digest of what is asked.

    `max_length` bounds the prompt and everything generated, in tokens. `params` has n = 1. An
    unknown `uid`, or another owner's, starts a new chat, or is an error if it `must_exist`.

    The turn follows `parent`: None is the active turn, "" none, so that it begins another path.
    `named` are the fields that the request itself names, of `params` and "plugins": the session's
    own values hold for all others. None: it names all. Where the turn is found stored, its end has
    the turns before it only if the request `shows_history`. Without `is_streamed` nobody reads the
    reply before its end.
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
    parent: str | None = None
    must_exist: bool = False
    named: frozenset[str] | None = None
    max_completion_tokens: int | None = None
    shows_history: bool = False
    is_streamed: bool = True
    meter: Meter = field(default_factory=Meter)


@dataclass(frozen=True)
class TurnDone:
    """The turn is stored and is the last one of the session's active path. One that `is_replayed`
    was stored before, and has used nothing now."""

    session: Session
    usage: Usage
    is_replayed: bool = field(default=False, compare=False)

    @property
    def turn(self) -> Turn:
        return self.session.turns[-1]

    @property
    def done(self) -> Done:
        """The end of the reply, as a stateless request gets it."""
        turn = self.turn
        digest = str(turn.make_up.get("prompt", ""))
        ended = turn.finish_reason, self.usage, turn.dropped_turns
        return Done(0, *ended, turn, prompt_digest=digest)


TurnEvent = Thoughts | PluginCall | Delta | TurnDone


@dataclass(frozen=True)
class TurnLimits:
    """Limits of every turn, whatever the client requests."""

    max_model_len: int
    max_turns: int = 500
    max_time_s: float = 300
    lease_renewal_s: float = 1


class MakeUp(Protocol):
    """Says what replies are made by: digests of weights and code, dtypes, tp size, processor."""

    async def make_up(self) -> Mapping[str, Any]:
        """Plain data by name. Quick after the first call. Empty while nobody knows."""
        ...


@dataclass(frozen=True)
class KeptCalls:
    """The CallLog of a turn that may be asked for again with its key: what an earlier try has got
    is not asked for again. A call with effects that it may have sent has no other result."""

    store: SessionStore
    lease: Lease
    deadline: float

    async def find(self, call_id: str) -> TimedOutput | None:
        found = await self.store.find(self.lease, call_id, self.deadline)
        return None if found is None else unpack_output(found)

    async def claim(self, call_id: str) -> bool:
        return await self.store.claim(self.lease, call_id, self.deadline)

    async def record(self, call_id: str, output: TimedOutput) -> TimedOutput:
        packed = pack_output(output)
        return unpack_output(await self.store.record(self.lease, call_id, packed, self.deadline))


class TurnRunner:
    """Runs turns on a store and a Replier, and keeps the leases of those that run."""

    def __init__(
        self,
        store: SessionStore,
        replier: Replier,
        limits: TurnLimits,
        make_up: MakeUp | None = None,
    ) -> None:
        self._store = store
        self._make_up = make_up
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
            request.owner,
            request.uid,
            request.idempotency_key,
            deadline,
            must_exist=request.must_exist,
        )
        if not opened.is_leased:
            yield await self._replayed(request, opened.session, deadline)
            return
        async with self._leases.hold(lease) as held:
            draft = make_draft(request, lease.key, opened.session, self._limits, deadline)
            if request.idempotency_key is not None:
                calls = KeptCalls(self._store, held.lease, deadline)
                draft.request = replace(draft.request, call_log=calls)
            async with aclosing(self._replier.reply(draft.request)) as events:
                async for event in events:
                    draft.add(event)
                    if not isinstance(event, Done):
                        yield event
            made_by = {} if self._make_up is None else await self._make_up.make_up()
            if committing is not None:
                committing.set()
            stored = await self._commit(held, draft, made_by, deadline)
        yield TurnDone(draft.session_with(stored), Usage(**stored.usage))

    async def _replayed(self, request: TurnRequest, found: Session, deadline: float) -> TurnDone:
        """The stored turn that was found, as it ended then."""
        done = replay(request, found)
        if not request.shows_history:
            return done
        session = await self._store.load(found.uid, found.owner, deadline)
        if session is None:
            raise TurnNotStoredError("the session was deleted meanwhile; try again")
        index = next(i for i, turn in enumerate(session.tree) if turn.id == done.turn.id)
        tree = session.tree[: index + 1]
        path = path_to(tree, done.turn.id)
        return replace(done, session=replace(session, turns=path, tree=tree))

    async def _commit(
        self, held: HeldLease, draft: Draft, made_by: Mapping[str, Any], deadline: float
    ) -> Turn:
        """The turn as it is stored, which ends the lease."""
        until = max(deadline, time.monotonic() + COMMIT_S)
        num_turns, turn = len(draft.session.tree), draft.turn(made_by)
        stored = await self._store.commit(held.lease, num_turns, turn, until)
        held.is_spent = True
        return stored


def make_draft(
    request: TurnRequest, key: str, session: Session, limits: TurnLimits, deadline: float
) -> Draft:
    """What `request` asks for in `session`, ready to run.

    Raises SessionFullError, TurnNotFoundError, and InvalidRequestError for parameters that do not
    fit the session's.
    """
    if len(session.tree) >= limits.max_turns:
        raise SessionFullError("the chat has as many turns as it may; start a new one")
    request = with_defaults(request, session)
    history = _path(session, request.parent)
    params = request.params
    if params.seed is None:
        params = replace(params, seed=seed_of(key))
    reply_request = ReplyRequest(
        request_id=new_token(),
        history=history,
        user=request.user,
        params=params,
        enabled=request.enabled,
        max_length=min(request.max_length, limits.max_model_len),
        deadline=deadline,
        owner=request.owner,
        session_id=session.uid,
        priority=request.priority,
        max_completion_tokens=request.max_completion_tokens,
        is_streamed=request.is_streamed,
        meter=request.meter,
    )
    return Draft(reply_request, key, request.fingerprint, session, history)


def with_defaults(request: TurnRequest, session: Session) -> TurnRequest:
    """`request` with the session's plugins and parameters where it names none of its own.

    A session enables no plugin that the request may not use.
    """
    if (named := request.named) is None:
        return request
    if session.plugins is not None and "plugins" not in named:
        request = replace(request, enabled=request.enabled & set(session.plugins))
    defaults = {name: session.defaults[name] for name in session.defaults.keys() - named}
    return replace(request, params=replace(request.params, **defaults))


def _path(session: Session, parent: str | None) -> tuple[Turn, ...]:
    """The turns on which a new one is made. Raises TurnNotFoundError."""
    if parent is None:
        return session.turns
    try:
        return path_to(session.tree, parent)
    except KeyError as error:
        raise TurnNotFoundError("parent: the session has no such turn") from error


def replay(request: TurnRequest, found: Session) -> TurnDone:
    """The end of the only turn of `found`, which the request's key has found.

    Raises IdempotencyMismatchError if it answered another request.
    """
    (turn,) = found.tree
    if turn.fingerprint != request.fingerprint:
        raise IdempotencyMismatchError("this Idempotency-Key was used with another body")
    return TurnDone(found, Usage(**turn.usage), is_replayed=True)
