"""Messages between an ingress and its rendering worker: msgpack, after four bytes of length.

A request is `(text, is_whole, in_steps)`. The worker answers with the offsets at which blocks end,
then with the HTML of each block, and of the open text after them unless the text is whole: nil if
it could not be rendered. They are a message each, or one list of all unless `in_steps`. After its
start it sends a first message, READY.
"""

from typing import Any

import msgpack

LENGTH_BYTES = 4
MAX_BYTES = 32 * 1024 * 1024
READY = "ready"


def pack(message: Any) -> bytes:
    packed: bytes = msgpack.packb(message, unicode_errors="replace")
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed


def length(head: bytes) -> int:
    """Of the message after `head`. Raises ValueError beyond MAX_BYTES."""
    if (num_bytes := int.from_bytes(head, "big")) > MAX_BYTES:
        raise ValueError("a message is too large")
    return num_bytes


def unpack(packed: bytes) -> Any:
    return msgpack.unpackb(packed)
