"""Opens the session of a turn: the one that the client names, or a new one.

A client that names no session, an expired one or another owner's gets a new uid, so nobody can
choose a uid. It does not depend on turns or prompts.
"""

import asyncio

from serve_app.errors import InvalidFieldError, TurnNotStoredError
from serve_app.sessions.session import is_uid, new_token
from serve_app.sessions.store import Lease, Opened, SessionStore

# A key that starts a chat also identifies it, so another client must be unlikely to choose it.
MIN_STARTING_KEY_CHARS = 16


async def open_session(
    store: SessionStore, owner: str, uid: str | None, idempotency_key: str | None
) -> tuple[Lease, Opened]:
    """The session and the lease that `begin` was called with.

    Raises what `SessionStore.begin` raises, InvalidFieldError for a key that is too short to
    start a chat, and TurnNotStoredError if the new session cannot be created.
    """
    key = idempotency_key or new_token()
    if uid is not None and is_uid(uid):
        lease = Lease(uid, owner, key, new_token())
        if (opened := await _begin(store, lease, may_create=False)) is not None:
            return lease, opened
    lease = Lease(await _new_uid(store, owner, idempotency_key), owner, key, new_token())
    if (opened := await _begin(store, lease, may_create=True)) is None:
        raise TurnNotStoredError("the new chat could not be started; try again")
    return lease, opened


async def _new_uid(store: SessionStore, owner: str, key: str | None) -> str:
    """The uid of a new chat; an Idempotency-Key always gets the same one."""
    if key is None:
        return new_token()
    if len(key) < MIN_STARTING_KEY_CHARS:
        raise InvalidFieldError(
            "an Idempotency-Key that starts a chat needs at least"
            f" {MIN_STARTING_KEY_CHARS} characters, e.g. a random UUID",
            "Idempotency-Key",
        )
    return await store.reserve_uid(owner, key)


async def _begin(store: SessionStore, lease: Lease, *, may_create: bool) -> Opened | None:
    try:
        return await store.begin(lease, may_create=may_create)
    except asyncio.CancelledError:
        await store.release(lease)  # the store may have granted it already
        raise
