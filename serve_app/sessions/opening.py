"""Opens the session of a turn: the one that the client names, or a new one.

A client that names no session, an expired one or another owner's gets a new uid, so nobody can
choose a uid. It does not depend on turns or prompts.
"""

import asyncio
from dataclasses import dataclass

from moss_tp.errors import DeadlineExceededError
from serve_app.errors import (
    InvalidFieldError,
    SessionNotFoundError,
    StoreUnavailableError,
    TurnNotStoredError,
)
from serve_app.sessions.lease import LeaseKeeper
from serve_app.sessions.session import is_uid, new_token
from serve_app.sessions.store import Lease, Opened, SessionStore

# A key that starts a chat also identifies it, so another client must be unlikely to choose it.
MIN_STARTING_KEY_CHARS = 16


@dataclass(frozen=True)
class SessionOpener:
    """Opens sessions of `store`; a lease that may have been taken in vain is ended by `leases`."""

    store: SessionStore
    leases: LeaseKeeper

    async def open(
        self,
        owner: str,
        uid: str | None,
        idempotency_key: str | None,
        deadline: float,
        *,
        must_exist: bool = False,
    ) -> tuple[Lease, Opened]:
        """The session and the lease that `begin` was called with.

        Raises what `SessionStore.begin` raises, SessionNotFoundError if there is none and it
        `must_exist`, InvalidFieldError for a key that is too short to start a chat, and
        TurnNotStoredError if the new session cannot be created.
        """
        key = idempotency_key or new_token()
        if uid is not None and is_uid(uid):
            lease = Lease(uid, owner, key, new_token())
            if (opened := await self._begin(lease, False, deadline)) is not None:
                return lease, opened
        if must_exist:
            raise SessionNotFoundError
        deleted = ""
        for _ in range(2):  # a key may have started a chat that is deleted
            new_uid = await self._new_uid(owner, idempotency_key, deadline, deleted)
            lease = Lease(new_uid, owner, key, new_token())
            if (opened := await self._begin(lease, True, deadline)) is not None:
                return lease, opened
            deleted = new_uid
        raise TurnNotStoredError("the new chat could not be started; try again")

    async def _new_uid(self, owner: str, key: str | None, deadline: float, deleted: str) -> str:
        """The uid of a new chat; an Idempotency-Key gets the same one until that is `deleted`."""
        if key is None:
            return new_token()
        if len(key) < MIN_STARTING_KEY_CHARS:
            raise InvalidFieldError(
                "an Idempotency-Key that starts a chat needs at least"
                f" {MIN_STARTING_KEY_CHARS} characters, e.g. a random UUID",
                "Idempotency-Key",
            )
        return await self.store.reserve_uid(owner, key, deadline, instead_of=deleted)

    async def _begin(self, lease: Lease, may_create: bool, deadline: float) -> Opened | None:
        try:
            return await self.store.begin(lease, deadline, may_create=may_create)
        except (asyncio.CancelledError, StoreUnavailableError, DeadlineExceededError):
            await self.leases.end(lease)  # the store may have granted it already
            raise
