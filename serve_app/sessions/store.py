"""The protocol of a session store: atomic steps on one session, each of which checks its owner.

A turn is `begin` → (`renew`)* → `commit` or `release`. The lease refuses a second concurrent turn
early. If a lease expires, `commit` still keeps turns in order by comparing the session's length.
"""

from dataclasses import dataclass
from typing import Protocol

from serve_app.sessions.session import Session, Turn


@dataclass(frozen=True)
class Lease:
    """The right to run the turn of `key` in a session; `token` is random."""

    uid: str
    owner: str
    key: str
    token: str


@dataclass(frozen=True)
class Opened:
    """The result of `begin`. If no lease was taken, the session already has the key's turn."""

    session: Session
    is_leased: bool


class SessionStore(Protocol):
    """Every method raises StoreUnavailableError if the store does not respond.

    Unknown and expired sessions and those of other owners are indistinguishable.
    """

    async def load(self, uid: str, owner: str) -> Session | None:
        """The session if it belongs to `owner`, else None."""
        ...

    async def reserve_uid(self, owner: str, key: str) -> str:
        """The uid of the session that `key` starts for this owner; each call gives the same."""
        ...

    async def begin(self, lease: Lease, *, may_create: bool) -> Opened | None:
        """Read the session and take `lease` on it, in one atomic step.

        None if the owner has no such session, unless `may_create`. Raises SessionBusyError if
        another lease is held, IdempotencyInProgressError if that one is for the same key.
        """
        ...

    async def renew(self, lease: Lease) -> bool:
        """Extend a lease; False if it is no longer held."""
        ...

    async def commit(self, lease: Lease, num_turns: int, turn: Turn) -> Turn:
        """Append `turn` durably to a session of exactly `num_turns` turns, and end the lease.

        Returns the stored turn of the lease's key. That is `turn` unless the key was stored
        before, so a commit that is sent twice stores one turn. Raises TurnNotStoredError if the
        session has another length, has expired or belongs to another owner.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """End the lease if it is still held."""
        ...
