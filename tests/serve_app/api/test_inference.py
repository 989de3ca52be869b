"""The service dialect knows no HTTP: requests to turns, errors to bodies."""

from typing import Any

import pytest

from moss_tp.errors import ContextLengthError, EngineDeadError, QueueFullError
from serve_app.api.inference import (
    InferenceError,
    InferenceRequest,
    encode_error,
    turn_request,
)
from serve_app.chat.turn import TurnRequest
from serve_app.errors import InvalidFieldError, SessionFullError, SessionNotFoundError


def turn(**body: Any) -> TurnRequest:
    request = InferenceRequest.model_validate({"request": "hi", **body})
    return turn_request(request, "ann", frozenset({"calculator"}), 4096, "k")


def test_a_context_must_exist_and_none_starts_a_chat() -> None:
    assert (turn(context="c").uid, turn(context="c").must_exist) == ("c", True)
    none: list[dict[str, Any]] = [{}, {"context": ""}, {"context": None}]
    for body in none:
        assert turn(**body).uid is None and not turn(**body).must_exist


def test_a_fingerprint_is_of_what_is_asked() -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"request": "ho"},
        {"plugin": {"calculator": True}},
        {"plugin": {"a": False}},
    ]
    assert len({turn(**body).fingerprint for body in asked}) == 4
    assert turn(context="c").fingerprint == turn().fingerprint


@pytest.mark.parametrize("error", [ContextLengthError("x"), SessionFullError("x")])
def test_what_is_too_long(error: Exception) -> None:
    body = encode_error(error, 400)
    assert body is not None and body["message_type"] == "max_length"
    InferenceError.model_validate(body, extra="forbid")


@pytest.mark.parametrize(
    ("error", "status", "field"),
    [
        (InvalidFieldError("x", "request"), 400, "request"),
        (InvalidFieldError("no JSON"), 400, None),
        (SessionNotFoundError(), 404, "context"),
    ],
)
def test_what_is_wrong(error: Exception, status: int, field: str | None) -> None:
    body = encode_error(error, status)
    assert body is not None and body["code"] == 400
    assert [detail["field"] for detail in body["detail"]] == [field]
    assert body["message"] == f"Validation Error: invalid {field or 'request'}\n"
    InferenceError.model_validate(body, extra="forbid")


def test_failures_say_nothing_of_themselves() -> None:
    for error in (EngineDeadError("rank 3 is dead"), RuntimeError("secret")):
        assert encode_error(error, 500) == {"code": 500, "message": "Internal Server Error"}
    assert encode_error(QueueFullError("full"), 429) is None
