"""Sessions and turns to and from the bytes that the store keeps."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import msgpack

from serve_app.sessions.session import Feedback, Session, StoredCall, Turn
from serve_app.sessions.tree import path_to

_TURN_FIELDS = frozenset(field.name for field in fields(Turn))


def pack(value: Any) -> bytes:
    """Plain data as bytes."""
    packed: bytes = msgpack.packb(value)
    return packed


def pack_turn(turn: Turn) -> bytes:
    """All of `turn` but its time, which the store adds."""
    packed = asdict(turn)
    del packed["created_ms"]
    return pack(packed)


def unpack_turn(stored: bytes) -> Turn:
    """The turn in `stored`: the store's time, a colon and what `pack_turn` made, maybe that of a
    newer version, whose further fields are left out."""
    created_ms, _, packed = stored.partition(b":")
    found = msgpack.unpackb(packed)
    calls = tuple(StoredCall(**call) for call in found.pop("calls", ()))
    known = {name: value for name, value in found.items() if name in _TURN_FIELDS}
    return Turn(**known, calls=calls, created_ms=int(created_ms))


def texts_of(stored: bytes) -> tuple[str, str]:
    """What the user and the model say in a stored turn."""
    fields = msgpack.unpackb(stored.partition(b":")[2])
    return fields["user"], fields["reply"]


def unpack_session(uid: str, owner: str, read: Sequence[Any]) -> Session:
    """The session of which a script has read meta, turns and feedback."""
    meta, feedback = _pairs(read[0]), _pairs(read[2])
    tree = tuple(unpack_turn(stored) for stored in read[1])
    session = Session(
        uid,
        owner,
        tree=tree,
        title=meta.get(b"title", b"").decode(),
        plugins=tuple(msgpack.unpackb(meta[b"plugins"])) if b"plugins" in meta else None,
        defaults=msgpack.unpackb(meta[b"defaults"]) if b"defaults" in meta else {},
        created_ms=int(meta.get(b"created", 0)),
        feedback={
            turn_id.decode(): Feedback(**msgpack.unpackb(value))
            for turn_id, value in feedback.items()
        },
    )
    return replace(session, turns=path_to(tree, meta.get(b"active", b"").decode()))


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
