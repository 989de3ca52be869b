"""The bodies of turns: what they may name, and what is refused by its name."""

import json
from typing import Any

import pytest

from serve_app.api.parsing import parse_body
from serve_app.api.sessions import SamplingDefaults
from serve_app.api.turns import NewTurn, turn_request
from serve_app.chat.turn import TurnRequest, with_defaults
from serve_app.errors import InvalidFieldError
from serve_app.sessions.session import Session


def asked(**fields: Any) -> TurnRequest:
    body = parse_body(json.dumps({"user": "hi", **fields}).encode(), NewTurn)
    return turn_request(body, "ann", "f" * 32, frozenset(), None)


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logit_bias": {"7": 5}},
        {"stop_token_ids": [7]},
        {"ignore_eos": True},
        {"logprobs": True},
        {"temprature": 0},
        {"stop": ["x"] * 17},
        {"stop": "x" * 257},
        {"stop": [""]},
        {"min_tokens": 9, "max_tokens": 8},
    ],
)
def test_what_would_not_be_honoured_is_refused_by_its_name(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        asked(**fields)
    assert (raised.value.param or "").split(".")[0] == next(iter(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": ["x"] * 16},
        {"stop": "x" * 256},
        {"min_tokens": 8, "max_tokens": 8},
        {"min_tokens": 1000},
        {"temperature": 0},
        {"stream": True, "model": "moss", "max_time": 3},
    ],
)
def test_what_is_honoured_is_taken(fields: dict[str, Any]) -> None:
    sampling = fields.keys() - {"stream", "model", "max_time"}
    request = asked(**fields)
    assert set(request.named or ()) == sampling
    for name in sampling - {"stop"}:
        assert getattr(request.params, name) == fields[name]


def test_the_context_bounds_a_reply_where_nothing_else_does() -> None:
    request = asked(temperature=0)
    assert request.params.max_tokens >= 2048 and request.named == frozenset({"temperature"})
    session = Session("uid", "ann", defaults={"max_tokens": 64})
    assert with_defaults(request, session).params.max_tokens == 64


def test_null_is_as_good_as_absent() -> None:
    names = NewTurn.model_fields.keys() - {"user", "parent"}
    assert asked(**dict.fromkeys(names)) == asked()
    assert asked(parent=None) != asked(), "but it begins another path"
    assert asked(temperature=0) != asked()
    nothing = dict.fromkeys(SamplingDefaults.model_fields)
    assert SamplingDefaults.model_validate(nothing).named == {}
    assert SamplingDefaults.model_validate({"temperature": 0.0}).named == {"temperature": 0.0}
