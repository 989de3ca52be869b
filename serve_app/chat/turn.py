"""One turn of a chat from request to acknowledgement: lease, generate, commit, then tell.

The order is the promise: the terminal event comes after the turn is durable, a turn that fails or
is abandoned leaves nothing, and the lease is given back whatever happens. Knows no HTTP.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from moss_tp.sampling_params import SamplingParams
from serve_app.chat.generation import Answer, Generation, ReplyDelta
from serve_app.chat.protocols import Prompts, ReplyGenerator
from serve_app.errors import (
    IdempotencyMismatchError,
    InvalidFieldError,
    SessionFullError,
    TurnNotStoredError,
)
from serve_app.sessions.lease import HeldLease
from serve_app.sessions.session import Session, Turn, is_uid, new_token
from serve_app.sessions.store import Lease, Opened, SessionStore

# Such a key names its chat and opens it, so it must not be something others would think of.
MIN_STARTING_KEY_CHARS = 16


@dataclass(frozen=True)
class TurnRequest:
    """What a principal asks. `fingerprint` is the digest of all of it that a retry repeats.

    `max_length` bounds prompt and everything generated, in tokens. `params` are the sampler's;
    the turn sets lengths and stops itself.
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


@dataclass(frozen=True)
class TurnDone:
    """The turn is stored: `session` ends with it."""

    session: Session

    @property
    def turn(self) -> Turn:
        return self.session.turns[-1]


@dataclass(frozen=True)
class TurnLimits:
    """Bounds of every turn, whatever the client asks."""

    max_model_len: int
    max_turns: int = 500
    max_time_s: float = 300
    lease_renewal_s: float = 5


@dataclass(frozen=True)
class TurnRunner:
    """Runs turns over a store and a model; holds no state of its own."""

    store: SessionStore
    prompts: Prompts
    generator: ReplyGenerator
    limits: TurnLimits

    async def run(self, request: TurnRequest) -> AsyncGenerator[ReplyDelta | TurnDone]:
        """Pieces of the reply, then one TurnDone. A repeated key gives its stored turn at once.

        Closing it before TurnDone cancels the turn. Raises the errors of `errors` and the
        engine's, before or after the first piece.
        """
        max_time_s = min(request.max_time_s or self.limits.max_time_s, self.limits.max_time_s)
        deadline = time.monotonic() + max_time_s
        lease, opened = await self._open(request)
        session = opened.session
        if not opened.is_leased:
            yield _replay(request, lease.key, session)
            return
        async with HeldLease(self.store, lease, self.limits.lease_renewal_s) as held:
            if len(session.turns) >= self.limits.max_turns:
                raise SessionFullError("the chat has as many turns as it may; start a new one")
            generation = await self._generation(request, session, deadline)
            answer: Answer | None = None
            async with aclosing(self.generator.run(generation)) as events:
                async for event in events:
                    if isinstance(event, Answer):
                        answer = event
                    else:
                        yield event
            assert answer is not None  # every generation that does not raise ends with one
            turn = _turn(request, lease.key, generation, answer)
            stored = await self.store.commit(lease, len(session.turns), turn)
            held.is_spent = True
        yield TurnDone(replace(session, turns=(*session.turns, stored)))

    async def _open(self, request: TurnRequest) -> tuple[Lease, Opened]:
        """The session to continue; a new one when the uid is not this owner's."""
        key = request.idempotency_key or new_token()
        if request.uid is not None and is_uid(request.uid):
            lease = Lease(request.uid, request.owner, key, new_token())
            if (opened := await self._begin(lease, may_create=False)) is not None:
                return lease, opened
        uid = new_token()
        if request.idempotency_key is not None:
            if len(key) < MIN_STARTING_KEY_CHARS:
                raise InvalidFieldError(
                    "an Idempotency-Key that starts a chat needs at least"
                    f" {MIN_STARTING_KEY_CHARS} characters, e.g. a random UUID",
                    "Idempotency-Key",
                )
            uid = await self.store.reserve_uid(request.owner, key)
        lease = Lease(uid, request.owner, key, new_token())
        if (opened := await self._begin(lease, may_create=True)) is None:
            raise TurnNotStoredError("the new chat could not be started; ask again")
        return lease, opened

    async def _begin(self, lease: Lease, *, may_create: bool) -> Opened | None:
        try:
            return await self.store.begin(lease, may_create=may_create)
        except asyncio.CancelledError:
            await self.store.release(lease)  # it may have been taken, unheard by us
            raise

    async def _generation(
        self, request: TurnRequest, session: Session, deadline: float
    ) -> Generation:
        max_length = min(request.max_length, self.limits.max_model_len)
        # A body of a quarter of a megabyte takes most of a second to encode.
        prompt = await asyncio.to_thread(
            self.prompts.build, session.turns, request.user, request.enabled, max_length
        )
        return Generation(
            request_id=new_token(),
            session_id=session.uid,
            prompt=prompt,
            max_length=max_length,
            params=request.params,
            enabled=request.enabled,
            deadline=deadline,
        )


def _turn(request: TurnRequest, key: str, generation: Generation, answer: Answer) -> Turn:
    return Turn(
        key=key,
        user=request.user,
        thoughts=answer.thoughts,
        commands=answer.commands,
        results=answer.results,
        reply=answer.reply,
        fingerprint=request.fingerprint,
        dropped_turns=generation.prompt.dropped_turns,
    )


def _replay(request: TurnRequest, key: str, session: Session) -> TurnDone:
    """The stored turn of `key`, told as it was: with the turns before it, none after it."""
    index = next(i for i, turn in enumerate(session.turns) if turn.key == key)
    if session.turns[index].fingerprint != request.fingerprint:
        raise IdempotencyMismatchError("this Idempotency-Key was used with another body")
    return TurnDone(replace(session, turns=session.turns[: index + 1]))
