"""The dialect of MOSS's demo API: the body of `POST /` to a TurnRequest, a turn's events to JSON.

The answer has the fields of the 2023 demo: `response` and the responses in `history` begin with
the role marker, as the demo's decoded text did, and `time` is local. It runs nothing.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moss_tp.dialogue import MARKERS
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.events import Delta
from serve_app.chat.turn import TurnDone, TurnEvent, TurnRequest
from serve_app.errors import InvalidFieldError, ModelNotFoundError
from serve_app.sessions.session import Turn

# The demo API has no API keys: all its callers are one owner, and only uids separate their chats.
OWNER = "demo"
# Larger than any model's context, and still a machine integer.
_MAX_LENGTH = 2**31 - 1
# The fields of a body that do not change what is asked. Only one model is served.
_DELIVERY = {"uid", "stream", "max_time", "model"}


class ChatRequest(BaseModel):
    """The JSON body of `POST /`. Unknown fields are ignored, as in the demo."""

    model_config = ConfigDict(
        strict=True, frozen=True, json_schema_extra={"examples": [{"prompt": "你是谁？"}]}
    )

    prompt: str = Field(min_length=1)
    uid: str | None = None
    max_length: int = Field(2048, ge=1, le=_MAX_LENGTH)
    top_p: float = Field(0.8, gt=0, le=1, allow_inf_nan=False)
    temperature: float = Field(0.7, ge=0, le=10, allow_inf_nan=False)
    # Of MOSS Vortex; see SamplingParams.
    length_penalty: float = Field(1.0, gt=0, le=10, allow_inf_nan=False)
    regulation_start: int = Field(512, ge=0, le=_MAX_LENGTH)
    stream: bool = False
    plugins: list[str] | None = None
    model: str | None = None
    max_time: float | None = Field(None, gt=0, allow_inf_nan=False)


class ChatAnswer(BaseModel):
    """`history` are pairs of what the user said and the response, the last one this turn's.

    `time` is local. `dropped_turns` is there only if older turns did not fit into the prompt.
    """

    response: str
    history: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    status: Literal[200] = 200
    time: str
    uid: str
    dropped_turns: int = 0


def turn_request(
    chat: ChatRequest,
    idempotency_key: str | None,
    model_names: Sequence[str],
    plugins: Collection[str],
) -> TurnRequest:
    """The turn that `chat` requests. All `plugins` of the server are enabled by default.

    Raises ModelNotFoundError for another model, InvalidFieldError for an unknown plugin.
    """
    if chat.model not in (None, *model_names):
        raise ModelNotFoundError(f"this server serves {model_names[0]!r}")
    if unknown := sorted(set(chat.plugins or ()) - set(plugins)):
        raise InvalidFieldError(f"plugins: not available here: {', '.join(unknown)}", "plugins")
    return TurnRequest(
        owner=OWNER,
        user=chat.prompt,
        fingerprint=_fingerprint(chat),
        params=SamplingParams(
            temperature=chat.temperature,
            top_p=chat.top_p,
            max_tokens=chat.max_length,
            length_penalty=chat.length_penalty,
            regulation_start=chat.regulation_start,
        ),
        enabled=frozenset(plugins if chat.plugins is None else chat.plugins),
        max_length=chat.max_length,
        uid=chat.uid,
        idempotency_key=idempotency_key,
        shows_history=True,
        is_streamed=bool(chat.stream),
        max_time_s=chat.max_time,
        named=_named(chat),
    )


def _named(chat: ChatRequest) -> frozenset[str]:
    """The fields whose values the chat's own do not replace."""
    named = {name for name in chat.model_fields_set if getattr(chat, name) is not None}
    return frozenset(named | ({"max_tokens"} if "max_length" in named else set()))


def _fingerprint(chat: ChatRequest) -> str:
    """A digest of what is asked, whatever chat it continues and however it is delivered.

    A client that retries may have learnt the uid meanwhile. Keys are the session's, so a turn of
    another session never has this one's key.
    """
    asked = chat.model_dump(mode="json", exclude=_DELIVERY)
    asked["plugins"] = chat.plugins and sorted(set(chat.plugins))
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


async def encode_stream(events: AsyncGenerator[TurnEvent]) -> AsyncGenerator[dict[str, Any]]:
    """`{"delta": text}` for each piece of the reply, then the same answer as without `stream`."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta) and event.text:
                yield {"delta": event.text}
            elif isinstance(event, TurnDone):
                yield _answer(event)


async def encode_answer(events: AsyncGenerator[TurnEvent]) -> dict[str, Any]:
    """The answer when the turn is done."""
    async with aclosing(encode_stream(events)) as encoded:
        *_, answer = [body async for body in encoded]
    return answer


def _answer(done: TurnDone) -> dict[str, Any]:
    """`dropped_turns` is there only if older turns did not fit into the prompt."""
    answer: dict[str, Any] = {
        "response": _response(done.turn),
        "history": [[turn.user, _response(turn)] for turn in done.session.turns],
        "status": 200,
        "time": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        "uid": done.session.uid,
    }
    if done.turn.dropped_turns:
        answer["dropped_turns"] = done.turn.dropped_turns
    return answer


def _response(turn: Turn) -> str:
    return f"\n{MARKERS['moss']} {turn.reply}"
