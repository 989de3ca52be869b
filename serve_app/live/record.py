"""The live record: all that is needed to run a turn, or to go on with it elsewhere."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import msgpack

from moss_tp.sampling_params import SamplingParams
from serve_app.access.gate import Ticket
from serve_app.chat.events import PluginCall
from serve_app.chat.resume import Resume
from serve_app.live.event import LiveEvent, plain
from serve_app.sessions.session import StoredCall
from serve_app.sessions.store import Lease

# Of the record. A field may be added without a new one, if a reader may ignore it.
VERSION = 1


@dataclass(frozen=True)
class LiveTurn:
    """A turn as it was started. It does not change.

    It follows the turn `parent`, in a session whose tree had `num_turns` turns. `params` has a
    seed. `made_by` is the make-up of what tells it, empty if nobody knew it. Whoever ends the turn
    settles the limits of its key by the `ticket`, if that has limits. `started_ms` is since 1970.
    """

    uid: str
    owner: str
    id: str
    key: str
    fingerprint: str
    user: str
    parent: str
    num_turns: int
    prompt_ids: tuple[int, ...]
    num_shared_tokens: int
    dropped_turns: int
    params: SamplingParams
    enabled: tuple[str, ...]
    max_length: int
    priority: int = 0
    max_completion_tokens: int | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)
    ticket: Ticket | None = None
    started_ms: int = 0

    def lease(self, token: str) -> Lease:
        """Of the session, while the holder of `token` tells the turn."""
        return Lease(self.uid, self.owner, self.key, token, self.id)


@dataclass(frozen=True)
class Hold:
    """The right to tell a turn: the store refuses a `token` that is not the newest."""

    turn: LiveTurn
    token: str

    @property
    def lease(self) -> Lease:
        return self.turn.lease(self.token)


def digest_of(made_by: Mapping[str, Any]) -> str:
    """Equal for equal make-ups; "" for one that nobody knows."""
    if not made_by:
        return ""
    text = json.dumps(plain(made_by), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def pack_turn(turn: LiveTurn) -> bytes:
    """All of `turn` but its ticket, which has to be read where the rest cannot be."""
    fields = {**asdict(turn), "ticket": None}
    packed: bytes = msgpack.packb({"version": VERSION, **fields})
    return packed


def pack_ticket(ticket: Ticket | None) -> bytes:
    packed: bytes = b"" if ticket is None else msgpack.packb(asdict(ticket))
    return packed


def unpack_ticket(packed: bytes) -> Ticket | None:
    return Ticket(**msgpack.unpackb(packed)) if packed else None


def unpack_turn(packed: bytes) -> LiveTurn:
    """The turn as another version may have packed it, without the fields that this one lacks.

    Raises ValueError for a record that cannot be read.
    """
    found = msgpack.unpackb(packed)
    if found.get("version", VERSION) > VERSION:
        raise ValueError("the record of a live turn is of a newer version")
    try:
        params = SamplingParams(**_known(SamplingParams, found["params"]))
        tuples = {name: tuple(found[name]) for name in ("prompt_ids", "enabled")}
        return LiveTurn(**{**_known(LiveTurn, found), **tuples, "params": params})
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("the record of a live turn lacks a field") from error


def _known(kind: type[LiveTurn | SamplingParams], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def resume_of(events: Sequence[LiveEvent], run: str) -> Resume:
    """Where a reply goes on of which these events were told."""
    tellings = [event.telling for event in events]
    thoughts = next((t for t in tellings if t.kind == "thoughts"), None)
    deltas = [t for t in tellings if t.kind == "delta"]
    return Resume(
        run=run,
        thought_ids=None if thoughts is None else thoughts.token_ids,
        num_cached_thoughts=0 if thoughts is None else thoughts.num_cached_tokens,
        num_call_events=sum(t.kind == "plugin" for t in tellings),
        reply_ids=tuple(i for t in deltas for i in t.token_ids),
        engine_text="".join(t.source_text for t in deltas),
        num_told_chars=sum(len(t.text) for t in deltas),
        num_cached_reply=deltas[0].num_cached_tokens if deltas else None,
    )


def num_generated(events: Sequence[LiveEvent]) -> int:
    """How many tokens are behind what these events told."""
    return sum(len(event.telling.token_ids) for event in events)


def calls_of(events: Sequence[LiveEvent]) -> list[StoredCall]:
    """The plugin calls that these events say have ended."""
    return [
        StoredCall(**_call_fields(event.data))
        for event in events
        if event.kind == "plugin" and event.data["state"] != "started"
    ]


def _call_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    names = PluginCall.__dataclass_fields__.keys() & StoredCall.__dataclass_fields__.keys()
    return {name: value for name, value in data.items() if name in names}
