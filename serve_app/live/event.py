"""The events of a live turn, as they are stored and told: a kind, data as JSON could hold it, and
what the data was made of, so that whoever takes the turn up can go on after it.

    turn  thoughts?  plugin*  delta*  done | error

They are numbered from 0, by their place in the store's list. It runs and stores nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import msgpack

from serve_app.chat.events import Delta, PluginCall, Thoughts

Kind = Literal["turn", "thoughts", "plugin", "delta", "reset", "done", "error"]
TERMINAL = frozenset({"done", "error"})


@dataclass(frozen=True)
class Telling:
    """An event without its number.

    `token_ids` are those behind its text. `engine_text` is what the engine made of them, where that
    is another text than the told one. `num_cached_tokens` of the pass's prompt were cached.
    """

    kind: Kind
    data: Mapping[str, Any]
    token_ids: tuple[int, ...] = ()
    engine_text: str | None = None
    num_cached_tokens: int = 0

    @property
    def is_terminal(self) -> bool:
        return self.kind in TERMINAL

    @property
    def text(self) -> str:
        """What a delta adds to the reply; nothing for other kinds."""
        return str(self.data["text"]) if self.kind == "delta" else ""

    @property
    def source_text(self) -> str:
        """What the engine made of a delta's tokens."""
        return self.text if self.engine_text is None else self.engine_text


@dataclass(frozen=True)
class LiveEvent:
    """An event that is stored."""

    number: int
    telling: Telling

    @property
    def kind(self) -> Kind:
        return self.telling.kind

    @property
    def data(self) -> Mapping[str, Any]:
        return self.telling.data


def telling_of(event: Thoughts | PluginCall | Delta) -> Telling:
    """An event of a reply, as its readers get it."""
    match event:
        case Thoughts():
            data = {"text": event.text}
            return Telling("thoughts", data, event.token_ids, None, event.num_cached_tokens)
        case PluginCall():
            return Telling("plugin", _call_data(event))
        case Delta():
            return _delta(event)


def _delta(event: Delta) -> Telling:
    source_text, num_cached = "", 0
    if event.source is not None:
        source_text, num_cached = event.source.text, event.source.num_cached_tokens
    engine_text = None if source_text == event.text else source_text
    return Telling("delta", {"text": event.text}, event.token_ids, engine_text, num_cached)


def _call_data(call: PluginCall) -> dict[str, Any]:
    fields = plain(asdict(call))
    del fields["choice"]
    return {name: value for name, value in fields.items() if value is not None}


def plain(value: Any) -> Any:
    """`value` as it is read back from the store, which has no tuples."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def joined(first: Telling, second: Telling) -> Telling:
    """Two deltas as one."""
    text, source_text = first.text + second.text, first.source_text + second.source_text
    return replace(
        first,
        data={"text": text},
        token_ids=first.token_ids + second.token_ids,
        engine_text=None if source_text == text else source_text,
    )


def pack(telling: Telling) -> bytes:
    """As the store keeps it."""
    packed: bytes = msgpack.packb(
        (
            telling.kind,
            telling.data,
            telling.token_ids,
            telling.engine_text,
            telling.num_cached_tokens,
        )
    )
    return packed


def unpack(packed: bytes) -> Telling:
    kind, data, token_ids, engine_text, num_cached_tokens = msgpack.unpackb(packed)
    return Telling(kind, data, tuple(token_ids), engine_text, num_cached_tokens)
