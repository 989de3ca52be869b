"""The protocol of the live turns' store: atomic steps, each of which checks who may make it.

    start ─> append* (claim, record)* ─> end          the holder of the newest token
               │ the lease runs out, or is handed over
               └─> take_up ─> append* … end           another ingress, with a token of its own

What a token that is not the newest asks for is refused. All steps may be repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, Protocol

from serve_app.access.gate import Ticket
from serve_app.chat.resume import TimedOutput
from serve_app.live.event import LiveEvent, Telling
from serve_app.live.record import Hold
from serve_app.sessions.store import Lease

MAX_TAKE_UPS = 3  # after tellers that died, or had to leave the turn

# What a client has asked for: "drop" leaves no trace of the turn, "keep" stores what was told.
Cancel = Literal["", "drop", "keep"]


@dataclass(frozen=True)
class Append:
    """Events of one turn; the first gets the number `start`, if it is not stored already."""

    hold: Hold
    start: int
    events: tuple[bytes, ...]


@dataclass(frozen=True)
class Standing:
    """Whether a hold is still good, and whether the turn is cancelled."""

    is_held: bool
    cancel: Cancel = ""


@dataclass(frozen=True)
class Ask:
    """A reader's question: which events of a turn there are from number `start` on."""

    uid: str
    owner: str
    id: str
    start: int = 0


@dataclass(frozen=True)
class Round:
    """What an ingress learns once a second: the turns that nobody tells, as (uid, id), and how many
    other ingresses of its make-up there are."""

    orphans: tuple[tuple[str, str], ...]
    num_others: int


@dataclass(frozen=True)
class TakenUp:
    """A turn that this ingress tells from now on.

    `attempt` counts its tellers before. It `is_stale` if another turn of its session runs by now.
    """

    hold: Hold
    attempt: int
    deadline: float
    cancel: Cancel
    events: tuple[LiveEvent, ...]
    is_stale: bool


@dataclass(frozen=True)
class GivenUp:
    """A turn that has ended by this. `num_generated` tokens were told of it, as far as is known."""

    ticket: Ticket | None
    num_generated: int


@dataclass(frozen=True)
class Polled:
    """`answers` have new events for readers, None where there is no such turn; `standings` say how
    holds stand. `num_cancels` becomes another number when any turn is to be cancelled."""

    answers: Sequence[tuple[LiveEvent, ...] | None]
    standings: Sequence[Standing]
    num_cancels: int


class LiveStore(Protocol):
    """Deadlines are in `time.monotonic` seconds; where they are stored, they are by the store's
    clock. Every method raises StoreUnavailableError, also if it only has too much to do; those that
    take a Hold, TurnTakenOverError unless they say otherwise.
    """

    async def start(self, hold: Hold, lease: Lease, first: Telling, deadline: float) -> None:
        """Makes the record of a turn, with its first event, and turns `lease`, which its session
        was opened with, into the hold's."""
        ...

    async def append(self, appends: Sequence[Append]) -> list[Standing]:
        """In one round trip."""
        ...

    async def poll(self, asks: Sequence[Ask], holds: Sequence[Hold]) -> Polled:
        """In one round trip, over a connection of its own."""
        ...

    async def read(self, ask: Ask, deadline: float = inf) -> tuple[LiveEvent, ...] | None:
        """As one of the answers of `poll`."""
        ...

    async def running(self, uid: str, owner: str) -> str | None:
        """The id of the turn that runs on the owner's session, if one does."""
        ...

    async def patrol(self, ingress: str, holds: Sequence[Hold], is_leaving: bool) -> Round:
        """Renews the holds, and says that this ingress is there, unless it `is_leaving`. Its name
        is a digest of its make-up, a colon and a token."""
        ...

    async def take_up(
        self, uid: str, turn_id: str, token: str, given_up: Telling, made: str = ""
    ) -> TakenUp | GivenUp | None:
        """None if the turn needs no teller: it has ended, is gone, or somebody else tells it. One
        of another make-up than `made`, a digest, is left to its own for a while.

        The last of more than MAX_TAKE_UPS take-ups ends the turn as `given_up`, unless it is stored
        in its session. Raises ValueError for a record that this version cannot read.
        """
        ...

    async def hand_over(self, hold: Hold, pause_s: float, is_failure: bool) -> None:
        """Lets others take the turn up, after `pause_s`. Does nothing for a hold that is lost."""
        ...

    async def end(self, hold: Hold, number: int, last: Telling, deadline: float = inf) -> None:
        """Appends the terminal event, and ends the record and what is left of the lease."""
        ...

    async def cancel(self, ask: Ask, cancel: Cancel) -> Cancel:
        """Asks the turn's teller to stop. Returns the request that stands, which is the first one;
        "" if the turn does not run."""
        ...

    async def owner_of(self, uid: str) -> str | None:
        """Of a session; for whoever runs the server."""
        ...

    async def find(self, hold: Hold, call_id: str) -> TimedOutput | None: ...

    async def claim(self, hold: Hold, call_id: str, deadline: float) -> bool:
        """Whether the call may be sent by this hold: no other one has claimed it."""
        ...

    async def record(
        self, hold: Hold, call_id: str, output: TimedOutput, deadline: float
    ) -> TimedOutput:
        """The result that stands: `output`, unless there was one."""
        ...
