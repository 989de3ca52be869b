"""A chat session as data: an owner and its ordered turns. Knows no store and no prompt.

A uid is a capability: whoever holds it can continue the chat. So the server makes every uid, from
128 random bits, and whatever does not look like one is no session's.
"""

import re
import secrets
from dataclasses import dataclass

_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Turn:
    """One finished exchange, as text without markers.

    `key` is the client's Idempotency-Key or one made by the server, `fingerprint` the digest of
    the request that asked for it. `commands` are those that ran, `results` the body of the
    Results segment with its own leading and trailing space or newline. `dropped_turns` counts
    the oldest turns that did not fit into this turn's prompt.
    """

    key: str
    user: str
    thoughts: str
    commands: str
    results: str
    reply: str
    fingerprint: str = ""
    dropped_turns: int = 0


@dataclass(frozen=True)
class Session:
    """A chat of `owner`; a session without turns is one that the store does not hold yet."""

    uid: str
    owner: str
    turns: tuple[Turn, ...] = ()


def new_token() -> str:
    """128 random bits in hex: a uid, a lease or the key of a turn."""
    return secrets.token_hex(16)


def is_uid(text: str) -> bool:
    """Whether `text` has the form of a uid that this server could have made."""
    return _UID.fullmatch(text) is not None
