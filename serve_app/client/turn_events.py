"""What a reader gets of a live turn, read from the server's events. All texts are untrusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.client.events import parse_event


@dataclass(frozen=True)
class Begun:
    """The turn runs, and can be followed by its id from anywhere."""

    id: str


@dataclass(frozen=True)
class Thoughts:
    """Inner thoughts, whole."""

    text: str


@dataclass(frozen=True)
class PluginCall:
    """A call that is `started`, or has ended as `done` or `failed` after `ms` milliseconds.

    `output` of one that is done is text, or a list of search items (`n`, `title`, `url`, `snippet`)
    or of pictures (`id`, `url`, `media_type`).
    """

    name: str
    argument: str
    state: str
    output: str | list[Mapping[str, Any]] | None = None
    ms: int | None = None


@dataclass(frozen=True)
class Delta:
    """The next piece of the reply."""

    text: str


@dataclass(frozen=True)
class Reset:
    """What was told of the reply does not count: the deltas after this are all of it."""


@dataclass(frozen=True)
class Waiting:
    """The server is away, for `reason`; it will be asked again."""

    reason: str


@dataclass(frozen=True)
class Done:
    """The turn is stored, as `turn`: a turn of the session resource."""

    turn: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.turn["id"])

    @property
    def reply(self) -> str:
        return str(self.turn["reply"])


@dataclass(frozen=True)
class Failed:
    """The turn ended without a trace, or cannot be followed; `kind` is the error's type."""

    message: str
    kind: str


TurnEvent = Begun | Thoughts | PluginCall | Delta | Reset | Waiting | Done | Failed


def read_event(kind: str, data: str) -> TurnEvent | None:
    """An event of the stream; None for one of a kind that this reader does not know.

    Raises ValueError, KeyError or TypeError for what is no event of the API.
    """
    fields = parse_event(data)
    match kind:
        case "turn":
            return Begun(_text(fields["id"]))
        case "thoughts":
            return Thoughts(_text(fields["text"]))
        case "plugin":
            return _call(fields)
        case "delta":
            return Delta(_text(fields["text"]))
        case "reset":
            return Reset()
        case "done":
            return read_done(fields)
        case "error":
            return Failed(_text(fields["error"]["message"]), _text(fields["error"]["type"]))
    return None


def _call(fields: Mapping[str, Any]) -> PluginCall:
    output, ms = fields.get("output"), fields.get("ms")
    if isinstance(output, list):
        for item in output:
            _text(item["url"])
    elif output is not None:
        _text(output)
    name, argument, state = (_text(fields[field]) for field in ("name", "argument", "state"))
    return PluginCall(name, argument, state, output, None if ms is None else int(ms))


def read_done(fields: Mapping[str, Any]) -> Done:
    """The end of a turn, which is also in the answer to a cancel. Raises as `read_event`."""
    turn = fields["turn"]
    for field in ("id", "reply"):
        _text(turn[field])
    return Done(turn)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("an event of the API has a text here")
    return value
