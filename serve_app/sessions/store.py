"""Where sessions live, by shape: atomic steps on one session, each checking its owner.

A turn is `begin` → (`renew`)* → `commit` or `release`. The lease gives the early refusal of a
second turn; what keeps turns in order when a lease expires is commit's compare of the length.
"""

from dataclasses import dataclass
from typing import Protocol

from serve_app.sessions.session import Session, Turn


@dataclass(frozen=True)
class Lease:
    """The right to run one turn: a random token, and the key of the turn it is for."""

    uid: str
    owner: str
    key: str
    token: str


@dataclass(frozen=True)
class Opened:
    """An answer to `begin`. Without a lease, the session already holds the turn of that key."""

    session: Session
    is_leased: bool


class SessionStore(Protocol):
    """Every method raises StoreUnavailableError when the store does not answer.

    An unknown, an expired and a foreign session are told apart nowhere.
    """

    async def load(self, uid: str, owner: str) -> Session | None:
        """The owner's session, None when there is none."""
        ...

    async def reserve_uid(self, owner: str, key: str) -> str:
        """The uid of the session that `key` starts for this owner: the same at every call."""
        ...

    async def begin(self, lease: Lease, *, may_create: bool) -> Opened | None:
        """Read the session and take `lease` on it, in one step.

        None when the owner has no such session, unless `may_create`. Raises SessionBusyError, or
        IdempotencyInProgressError when the lease that is held is for the same key.
        """
        ...

    async def renew(self, lease: Lease) -> bool:
        """Prolong a lease; False when it is no longer held."""
        ...

    async def commit(self, lease: Lease, num_turns: int, turn: Turn) -> Turn:
        """Append `turn` to a session of exactly `num_turns` turns, durably, and end the lease.

        Returns the stored turn of that key, which is `turn` unless the key was there before:
        sending a commit twice stores it once. Raises TurnNotStoredError when the session has
        another length, expired or belongs to another.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give up the lease, if it is still this one."""
        ...
