"""What travels on a connection: msgpack arrays, one behind the other.

The first is `[token, name, make_up]`, by which the sender introduces itself; each later one is
`[stream, payload]`. Stream 0 is the connection's own: a beat, which says that the sender lives.
"""

import hmac
from dataclasses import dataclass
from typing import Any

import msgpack

BEAT_S = 1.0
BEAT_STREAM = 0
MAX_MESSAGE_BYTES = 64 << 20  # logprobs of a whole context's prompt are a few megabytes


class WireError(Exception):
    """Bytes that no sender of ours has written."""


@dataclass(frozen=True)
class Peer:
    """A sender: the replica's full unique id, and the digest of what makes its replies."""

    name: str
    make_up: str = ""


def pack(message: object) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed


def unpacker() -> msgpack.Unpacker:
    """Of one connection. Iterating over it raises `msgpack.UnpackException` or ValueError."""
    return msgpack.Unpacker(max_buffer_size=MAX_MESSAGE_BYTES)


def introduction(token: bytes, peer: Peer) -> bytes:
    return pack([token, peer.name, peer.make_up])


def introduced(message: Any, token: bytes) -> Peer:
    """The peer of an `introduction` with that token. Raises WireError."""
    match message:
        case [bytes(shown), str(name), str(make_up)] if hmac.compare_digest(shown, token):
            return Peer(name, make_up)
    raise WireError("not an introduction with our token")
