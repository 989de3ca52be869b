"""The JSON of live turns: what starts one, and its events as readers get them.

It runs nothing, and knows neither how events are numbered nor how they travel.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moss_tp.sampling_params import MAX_STOP_LENGTH, MAX_STOP_STRINGS, SamplingParams
from serve_app.api.sessions import SamplingDefaults, TurnAnswer, turn_answer
from serve_app.chat.turn import TurnRequest
from serve_app.errors import InvalidFieldError
from serve_app.live.event import LiveEvent
from serve_app.prompt.exchange import shown_thoughts
from serve_app.sessions.session import Session, StoredCall, Turn

_MAX_DIGITS = 9
EventNumber = Annotated[int, Field(ge=0, lt=10**_MAX_DIGITS)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
_MAX_LENGTH = 2**31 - 1
_DELIVERY = {"stream", "max_time", "model"}  # they do not change what is asked
_NOT_SAMPLING = {"user", "parent", "plugins", "max_completion_tokens", *_DELIVERY}


class TurnOptions(SamplingDefaults):
    """How a turn is made. What it does not name is the session's, or the server's; null names
    nothing. Other fields are refused, since they may be meant to change the answer.

    `max_tokens` bounds the reply, `max_completion_tokens` thoughts and reply together.
    """

    seed: int | None = Field(None, ge=0, lt=2**63)
    min_tokens: int | None = Field(None, ge=0, le=_MAX_LENGTH)
    stop: Annotated[list[Stop], Field(max_length=MAX_STOP_STRINGS)] | Stop | None = None
    max_completion_tokens: int | None = Field(None, ge=1, le=_MAX_LENGTH)
    plugins: list[str] | None = None
    model: str | None = None
    max_time: float | None = Field(None, gt=0)
    stream: bool | None = None


class NewTurn(TurnOptions):
    """The body of `POST /v1/sessions/{uid}/turns`.

    The turn follows the active one, or `parent`: null begins another path, as an edit of a chat's
    first turn does.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "12 * 34?"}]})

    user: str = Field(min_length=1)
    parent: str | None = Field(None, min_length=1, max_length=64)


class CancelBody(BaseModel):
    """The body of a cancel: whether to keep what was told as a whole turn."""

    model_config = ConfigDict(strict=True, frozen=True)

    keep: bool = False


class CancelAnswer(BaseModel):
    """What became of the turn: "running" if its end takes longer than the answer."""

    id: str
    state: Literal["cancelled", "done", "failed", "running"]
    turn: TurnAnswer | None = None


class ReplayAnswer(BaseModel):
    """Whether a turn that was made again is the same: see `moss replay`.

    `differences` are pairs of what it was made of then and now; with any, it was not made again.
    `changed` names the texts that are others now.
    """

    differences: dict[str, list[Any]]
    changed: list[str]
    reply: str | None


class DoneAnswer(BaseModel):
    """The end of a turn that is stored."""

    turn: TurnAnswer
    finish_reason: str
    usage: dict[str, Any]


def turn_request(
    body: TurnOptions,
    owner: str,
    uid: str,
    enabled: frozenset[str],
    idempotency_key: str | None,
    instead_of: str = "",
) -> TurnRequest:
    """The turn that `body` asks for, or that is made again in the place of `instead_of`.

    Raises InvalidFieldError for parameters that cannot be used together.
    """
    sampling = body.model_dump(exclude=_NOT_SAMPLING, exclude_none=True)
    max_tokens = body.max_tokens or _MAX_LENGTH  # what the context has room for
    if (body.min_tokens or 0) > max_tokens:
        raise InvalidFieldError(f"min_tokens: more than max_tokens, {max_tokens}", "min_tokens")
    has_parent = isinstance(body, NewTurn) and "parent" in body.model_fields_set
    return TurnRequest(
        owner=owner,
        user=body.user if isinstance(body, NewTurn) else "",
        fingerprint=_fingerprint(body, instead_of),
        params=SamplingParams(**{**sampling, "max_tokens": max_tokens}),
        enabled=enabled,
        max_length=_MAX_LENGTH,
        uid=uid,
        idempotency_key=idempotency_key,
        max_time_s=body.max_time,
        parent=(body.parent or "") if isinstance(body, NewTurn) and has_parent else None,
        must_exist=True,
        max_completion_tokens=body.max_completion_tokens,
        named=frozenset(sampling) | ({"plugins"} if body.plugins is not None else set()),
    )


def _fingerprint(body: TurnOptions, instead_of: str) -> str:
    asked = body.model_dump(mode="json", exclude=_DELIVERY, exclude_none=True)
    if "parent" in body.model_fields_set:
        asked["parent"] = body.parent if isinstance(body, NewTurn) else None
    text = json.dumps([asked, instead_of], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def event_data(kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What readers get of an event: all of it, with a turn as the session resource shows it."""
    if kind == "thoughts":
        return {**data, "text": shown_thoughts(data["text"])}
    return done_answer(data).model_dump() if kind == "done" else data


def done_answer(data: Mapping[str, Any]) -> DoneAnswer:
    """The answer that a turn's last event is made of."""
    turn = _turn(data["turn"])
    answer = turn_answer(Session("", ""), turn)
    return DoneAnswer(turn=answer, finish_reason=turn.finish_reason, usage=answer.usage)


def cancel_answer(turn_id: str, last: LiveEvent | None) -> CancelAnswer:
    """The answer to a cancel after which `last` was the turn's terminal event."""
    if last is None:
        return CancelAnswer(id=turn_id, state="running")
    if last.kind == "error":
        is_ours = last.data["error"]["code"] == "turn_cancelled"
        return CancelAnswer(id=turn_id, state="cancelled" if is_ours else "failed")
    turn = done_answer(last.data).turn
    is_cut = turn.finish_reason == "cancelled"
    return CancelAnswer(id=turn_id, state="cancelled" if is_cut else "done", turn=turn)


def parse_event_number(name: str, text: str) -> int:
    """The number of an event in a header or query `name`. Raises InvalidFieldError."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InvalidFieldError(f"{name} is not the number of an event", name)
    return int(text)


def _turn(fields: Mapping[str, Any]) -> Turn:
    """The stored turn of which these are the fields."""
    calls = tuple(StoredCall(**call) for call in fields["calls"])
    return Turn(**{**fields, "calls": calls})
