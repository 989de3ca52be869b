"""A chat session as data: an owner and its ordered turns, independent of any store.

A uid is a capability: any client that has it can continue the chat. So the server makes every
uid from 128 random bits, and text of any other form is never looked up.
"""

import re
import secrets
from dataclasses import dataclass

from moss_tp.engine.outputs import FinishReason
from serve_app.prompt.exchange import Exchange

_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Turn(Exchange):
    """A finished exchange of a session, as it is stored.

    `key` is the client's Idempotency-Key or one that the server made; `fingerprint` is a digest
    of the request. `dropped_turns` counts the oldest turns that did not fit into this turn's
    prompt. `finish_reason` says how the reply ended.
    """

    key: str
    fingerprint: str = ""
    dropped_turns: int = 0
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True)
class Session:
    """A chat of `owner`. A session without turns is not in the store yet."""

    uid: str
    owner: str
    turns: tuple[Turn, ...] = ()


def new_token() -> str:
    """128 random bits in hex, for a uid, a lease token or the key of a turn."""
    return secrets.token_hex(16)


def is_uid(text: str) -> bool:
    """Whether `text` has the form of the uids that this server makes."""
    return _UID.fullmatch(text) is not None
