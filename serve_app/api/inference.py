"""The dialect of MOSS's service API: the body of `POST /api/inference` to a TurnRequest, a stored
turn to its answer, and errors in its own form.

`context` names a session here. The 2023 service let clients hold the whole dialogue in it, which
they could forge.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moss_tp.errors import ContextLengthError
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.turn import TurnDone, TurnEvent, TurnRequest
from serve_app.errors import InvalidFieldError, SessionFullError, SessionNotFoundError
from serve_app.sessions.session import StoredCall, Turn, has_images

# As the service called them, by the names in Commands.
TYPES = {"Search": "search", "Calculate": "calculate", "Solve": "solve", "Text2Image": "draw"}
# The published plugins by all that a client may know of them: the command's name, and the type.
_PLUGINS = {
    "Search": "web_search",
    "Calculate": "calculator",
    "Solve": "equation_solver",
    "Text2Image": "text_to_image",
}
_BY_ALIAS = {**_PLUGINS, **{TYPES[command]: name for command, name in _PLUGINS.items()}}
TOO_LONG = "The maximum context length is exceeded"


class InferenceRequest(BaseModel):
    """The JSON body. A plugin that `plugin` does not name is on, as without it; its name is the
    plugin's, its command's or its type in an answer.

    `max_time` is in seconds, for the whole request.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    request: str = Field(min_length=1)
    context: str | None = None
    plugin: dict[str, bool] | None = Field(None, max_length=64)
    max_time: float | None = Field(None, gt=0, allow_inf_nan=False)

    def switched(self, is_on: bool, deployed: Collection[str]) -> frozenset[str]:
        """The plugins that it switches on, or off. Raises InvalidFieldError for unknown ones."""
        switches = (self.plugin or {}).items()
        names = {_BY_ALIAS.get(name, name) for name, value in switches if value == is_on}
        if unknown := sorted(names - {*deployed, *_PLUGINS.values()}):
            raise InvalidFieldError(f"plugin: there is no {unknown[0][:100]!r}", "plugin")
        return frozenset(names)


class ExtraData(BaseModel):
    """A plugin call that had a result."""

    type: str
    request: str
    data: dict[str, Any]


class InferenceAnswer(BaseModel):
    """`context` continues the chat."""

    response: str
    context: str
    extra_data: list[ExtraData] | None


class ErrorDetail(BaseModel):
    """A field that is wrong."""

    field: str | None
    message: str


class InferenceError(BaseModel):
    """An error in the service's own form."""

    code: Literal[400, 500]
    message: str
    message_type: Literal["max_length"] | None = None
    detail: list[ErrorDetail] | None = None


def turn_request(
    body: InferenceRequest,
    owner: str,
    enabled: frozenset[str],
    max_length: int,
    idempotency_key: str | None,
) -> TurnRequest:
    """The turn that `body` requests, with the sampling parameters of the 2023 services."""
    asked = json.dumps([body.request, sorted((body.plugin or {}).items())])
    return TurnRequest(
        owner=owner,
        user=body.request,
        fingerprint=hashlib.sha256(asked.encode()).hexdigest(),
        params=SamplingParams(max_tokens=max_length),
        enabled=enabled,
        max_length=max_length,
        uid=body.context or None,
        idempotency_key=idempotency_key,
        max_time_s=body.max_time,
        must_exist=bool(body.context),
        is_streamed=False,
    )


async def encode_answer(events: AsyncGenerator[TurnEvent]) -> dict[str, Any]:
    """The InferenceAnswer when the turn is stored."""
    async with aclosing(events):
        *_, done = [event async for event in events]
    assert isinstance(done, TurnDone)  # the last event of every turn
    return {
        "response": done.turn.reply,
        "context": done.session.uid,
        "extra_data": list(_extra_data(done.turn)) or None,
    }


def encode_error(error: Exception, status: int) -> dict[str, Any] | None:
    """The InferenceError for an error whose status is 400, 404 or 500; None for all others."""
    if isinstance(error, ContextLengthError | SessionFullError):
        return {"code": 400, "message": TOO_LONG, "message_type": "max_length"}
    if isinstance(error, SessionNotFoundError):
        error, status = InvalidFieldError("context: no such chat", "context"), 400
    if status == 400:
        field = error.param if isinstance(error, InvalidFieldError) else None
        field = "plugin" if field == "plugins" else field  # the other dialects' name of it
        message = f"Validation Error: invalid {field or 'request'}\n"
        return {
            "code": 400,
            "message": message,
            "detail": [{"field": field, "message": f"{error}"}],
        }
    return {"code": 500, "message": "Internal Server Error"} if status == 500 else None


def _extra_data(turn: Turn) -> Iterator[dict[str, Any]]:
    for call in turn.calls:
        if call.state == "done":
            kind = TYPES.get(call.name, call.name.lower())
            yield {"type": kind, "request": call.argument, "data": _data(call)}


def _data(call: StoredCall) -> dict[str, Any]:
    """What the service's back ends answered: items and images by their place, else the result."""
    if isinstance(call.output, str):
        return {"result": call.output}
    items = enumerate(call.output or ())
    if has_images(call):
        return {str(i): dict(image) for i, image in items}
    return {str(i): {**_item(item), "summ": item["snippet"]} for i, item in items}


def _item(item: dict[str, Any]) -> dict[str, Any]:
    return {"title": item["title"], "url": item["url"]}
