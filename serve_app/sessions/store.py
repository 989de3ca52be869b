"""The protocol of a session store: atomic steps on one session, each of which checks its owner.

A turn is `begin` → (`renew`)* → `commit` or `release`. The lease refuses a second concurrent turn
early, and every write of a turn whose lease another one has taken (fencing). If a lease expires,
`commit` still keeps turns in order by comparing the number of the session's turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from serve_app.sessions.session import Session, Turn


@dataclass(frozen=True)
class Lease:
    """The right to run the turn of `key` in a session; `token` is random.

    A live turn has its `turn_id`, and a record that says whose it is: as long as that says so, and
    no longer, it may be stored.
    """

    uid: str
    owner: str
    key: str
    token: str
    turn_id: str = ""


@dataclass(frozen=True)
class Opened:
    """The result of `begin`. If no lease was taken, the session already has the key's turn, and
    `session` has no other one: the rest was not read."""

    session: Session
    is_leased: bool


class SessionStore(Protocol):
    """Every step is idempotent, and is repeated while the store is away: for a few seconds.

    A `deadline`, in `time.monotonic` seconds, bounds that further; a step that has not run by then
    raises DeadlineExceededError. Every method raises StoreUnavailableError if the store does not
    respond. Unknown and expired sessions and those of other owners are indistinguishable.
    """

    async def load(self, uid: str, owner: str, deadline: float = inf) -> Session | None:
        """The session if it belongs to `owner`, else None."""
        ...

    async def load_turn(
        self, uid: str, owner: str, turn_id: str, deadline: float = inf
    ) -> Turn | None:
        """That turn alone, None if the session has no such one. Raises SessionNotFoundError."""
        ...

    async def reserve_uid(
        self, owner: str, key: str, deadline: float = inf, *, instead_of: str = ""
    ) -> str:
        """The uid of the session that `key` starts for this owner; each call gives the same.

        Another one if that is `instead_of`, a session that was deleted.
        """
        ...

    async def begin(
        self, lease: Lease, deadline: float = inf, *, may_create: bool
    ) -> Opened | None:
        """Read the session and take `lease` on it, in one atomic step.

        None if the owner has no such session, unless `may_create`, and for a deleted one. Raises
        SessionBusyError if another lease is held, IdempotencyInProgressError if that one is for the
        same key, SessionFullError if its turns have as many bytes as they may. After any other
        error the lease may be held all the same.
        """
        ...

    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """Extend the leases; False for each that is no longer held."""
        ...

    async def claim(self, lease: Lease, call_id: str, deadline: float = inf) -> bool:
        """Whether the plugin call `TURN-CHOICE-INDEX-DIGEST`, which has effects, may be sent:
        true for one lease only of all that the turn's key ever gets, whatever is called at that
        place. Raises LeaseLostError."""
        ...

    async def find(self, lease: Lease, call_id: str, deadline: float = inf) -> bytes | None:
        """What the plugin call has answered, in this or in an earlier try of the turn's key.

        Raises LeaseLostError.
        """
        ...

    async def record(
        self, lease: Lease, call_id: str, result: bytes, deadline: float = inf
    ) -> bytes:
        """The result that stands: `result`, unless there was one. Raises LeaseLostError."""
        ...

    async def commit(self, lease: Lease, num_turns: int, turn: Turn, deadline: float = inf) -> Turn:
        """Append `turn` durably to a session with a tree of exactly `num_turns` turns, make it the
        active one, and end the lease.

        It is repeated for longer than the other steps. Returns the stored turn of the lease's key:
        `turn` with the store's time, unless the key was stored before, so a commit that is sent
        twice stores one turn. Raises LeaseLostError if another lease is held, or a live turn
        has ended or is told by another token. A lease that merely expired loses no turn. Raises
        TurnNotStoredError if the session has another number of turns, was deleted, has expired or
        belongs to another owner, or if the deadline passes. After StoreUnavailableError the turn
        may be stored all the same.
        """
        ...

    async def release(self, leases: Sequence[Lease]) -> None:
        """End those of the leases that are still held."""
        ...

    async def is_ready(self) -> bool:
        """Whether the store takes a write, within about a second."""
        ...
