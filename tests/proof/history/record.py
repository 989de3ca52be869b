"""What clients sent and saw, as they write it down. The checker reads nothing else of them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = Mapping[str, Any]
# open: no end is known · acked: the client read success · failed: it read that the turn has failed
# · refused: it was never run
State = Literal["open", "acked", "failed", "refused"]


@dataclass
class Act:
    """One turn that a client wanted, however often it asked. `user` is empty if it regenerates."""

    tenant: str
    kind: str
    key: str
    user: str
    uid: str | None = None
    state: State = "open"
    acked_at: float = 0.0
    # What success said of the turn: some or all of a turn's fields.
    answers: list[Json] = field(default_factory=list)
    # Ids of turns that the client read to have failed, or to be cancelled.
    failed_ids: set[str] = field(default_factory=set)

    def ack(self, answer: Json) -> None:
        if self.state != "acked":
            self.state, self.acked_at = "acked", time.monotonic()
        self.answers.append(answer)

    def fail(self, turn_id: str) -> None:
        self.failed_ids.add(turn_id)
        if self.state == "open":
            self.state = "failed"


@dataclass(frozen=True)
class Stream:
    """The events of one response, in the order in which they came: number, kind and data."""

    turn: str
    after: int
    events: tuple[tuple[int, str, Json], ...]
    is_whole: bool  # it ended as a response ends, and was not broken off


@dataclass(frozen=True)
class Read:
    """What a read of a session's tree said. `turns` is None if it was not found."""

    tenant: str
    uid: str
    began: float
    ended: float
    turns: tuple[Json, ...] | None


@dataclass
class Record:
    """Of all clients of a run. `foreign` are reads of what is another tenant's."""

    acts: list[Act] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    foreign: list[Read] = field(default_factory=list)
    deleting: dict[str, float] = field(default_factory=dict)  # uid: when a delete was asked for
    deleted: dict[str, float] = field(default_factory=dict)  # uid: when it was confirmed
    owners: dict[str, str] = field(default_factory=dict)  # uid: tenant
    faults: list[str] = field(default_factory=list)  # what a client saw to be wrong by itself
    statuses: dict[int, int] = field(default_factory=dict)
    gaps: list[float] = field(
        default_factory=list
    )  # seconds from a broken stream to its next event

    def uids(self, tenant: str) -> list[str]:
        return [u for u, owner in self.owners.items() if owner == tenant and u not in self.deleting]


def canary_of(tenant: str) -> str:
    """What all texts of a tenant hold, and nobody else may ever see."""
    return f"canary-{tenant}-7f3a9c"
