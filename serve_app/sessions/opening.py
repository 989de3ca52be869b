"""Opens the session of a turn: the one that the client names, or a new one.

A client that names no session, an expired one or another owner's gets a new uid, so nobody can
choose a uid. It does not depend on turns or prompts.
"""

import asyncio
from dataclasses import dataclass

from moss_tp.errors import DeadlineExceededError
from serve_app.errors import InvalidFieldError, StoreUnavailableError, TurnNotStoredError
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
        self, owner: str, uid: str | None, idempotency_key: str | None, deadline: float
    ) -> tuple[Lease, Opened]:
        """The session and the lease that `begin` was called with.

        Raises what `SessionStore.begin` raises, InvalidFieldError for a key that is too short to
        start a chat, and TurnNotStoredError if the new session cannot be created.
        """
        key = idempotency_key or new_token()
        if uid is not None and is_uid(uid):
            lease = Lease(uid, owner, key, new_token())
            if (opened := await self._begin(lease, False, deadline)) is not None:
                return lease, opened
        new_uid = await self._new_uid(owner, idempotency_key, deadline)
        lease = Lease(new_uid, owner, key, new_token())
        if (opened := await self._begin(lease, True, deadline)) is None:
            raise TurnNotStoredError("the new chat could not be started; try again")
        return lease, opened

    async def _new_uid(self, owner: str, key: str | None, deadline: float) -> str:
        """The uid of a new chat; an Idempotency-Key always gets the same one."""
        if key is None:
            return new_token()
        if len(key) < MIN_STARTING_KEY_CHARS:
            raise InvalidFieldError(
                "an Idempotency-Key that starts a chat needs at least"
                f" {MIN_STARTING_KEY_CHARS} characters, e.g. a random UUID",
                "Idempotency-Key",
            )
        return await self.store.reserve_uid(owner, key, deadline)

    async def _begin(self, lease: Lease, may_create: bool, deadline: float) -> Opened | None:
        try:
            return await self.store.begin(lease, deadline, may_create=may_create)
        except (asyncio.CancelledError, StoreUnavailableError, DeadlineExceededError):
            await self.leases.end(lease)  # the store may have granted it already
            raise
