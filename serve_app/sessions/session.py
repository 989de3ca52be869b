"""A chat session as data: an owner and its ordered turns, independent of any store.

A uid is a capability: any client that has it can continue the chat. So the server makes every
uid from 128 random bits, and text of any other form is never looked up.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from serve_app.prompt.exchange import Exchange, TurnEnd

_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class StoredCall:
    """A plugin call of a turn as its readers saw it end; `output` is untrusted."""

    id: str
    name: str
    argument: str
    state: Literal["done", "failed"]
    output: Any = None
    ms: int | None = None


@dataclass(frozen=True)
class Turn(Exchange):
    """A finished exchange of a session, as it is stored.

    `key` is the client's Idempotency-Key or one that the server made; `fingerprint` is a digest
    of the request. `dropped_turns` counts the oldest turns that did not fit into this turn's
    prompt. `finish_reason` says how the reply ended.

    `id` is made by the server, `parent` the id of the turn before it: "" for a chat's first turn.
    `seed` is what it was drawn with. `make_up` says what made it, in digests and settings by name.
    `created_ms` is the store's clock, in milliseconds since 1970. `duration_ms` is how long it was
    made, by the clocks of ingresses; 0 for turns of versions that did not store it.
    """

    key: str
    fingerprint: str = ""
    dropped_turns: int = 0
    finish_reason: TurnEnd = "stop"
    id: str = ""
    parent: str = ""
    created_ms: int = 0
    seed: int = 0
    calls: tuple[StoredCall, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    duration_ms: int = 0
    make_up: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Feedback:
    """What a reader thinks of a turn. It is stored beside the turn, which never changes."""

    liked: bool | None = None
    comment: str = ""


@dataclass(frozen=True)
class Session:
    """A chat of `owner`. `turns` are the active path, `tree` is every turn in stored order.

    `plugins` and `defaults` (of sampling parameters, by name) hold for turns that name none.
    `feedback` is by the ids of turns.
    """

    uid: str
    owner: str
    turns: tuple[Turn, ...] = ()
    tree: tuple[Turn, ...] = ()
    title: str = ""
    plugins: tuple[str, ...] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    created_ms: int = 0
    feedback: Mapping[str, Feedback] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionSummary:
    """A line of a list of chats. `updated_ms` is when the chat got its newest turn, `num_bytes` is
    the size of its stored turns."""

    uid: str
    title: str
    created_ms: int
    updated_ms: int
    num_turns: int
    num_bytes: int


def has_images(call: StoredCall) -> bool:
    """Whether the output of `call` are pictures, each with an id, a URL and a media type."""
    output = call.output
    return isinstance(output, list | tuple) and any("media_type" in each for each in output)


def new_token() -> str:
    """128 random bits in hex, for a uid, a lease token or the key of a turn."""
    return secrets.token_hex(16)


def is_uid(text: str) -> bool:
    """Whether `text` has the form of the uids that this server makes."""
    return _UID.fullmatch(text) is not None
