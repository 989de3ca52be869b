"""The wrong field of a body, by its name in the body."""

import json
from typing import Any

import pytest

from serve_app.api.openai.chat_request import ChatCompletionRequest
from serve_app.api.parsing import parse_body
from serve_app.errors import InvalidFieldError

HI = [{"role": "user", "content": "hi"}]
NO_OBJECT = "Input should be an object"
NEITHER = "Input should be a valid string or Input should be a valid list"


def with_content(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"stop": ["x"] * 17}, "stop", "at most 16 items"),
        ({"stop": 5}, "stop", NEITHER),
        ({"stop": ""}, "stop", "at least 1 character"),
        ({"stop": ["x", 5]}, "stop.1", "valid string"),
        ({"logit_bias": {"abc": 1}}, "logit_bias.abc", "match pattern"),
        ({"logit_bias": {"1": 1000}}, "logit_bias.1", "less than or equal to 100"),
        ({"temperature": "x"}, "temperature", "valid number"),
        ({"stream_options": 1}, "stream_options", NO_OBJECT),
        (with_content(5), "messages.0.content", NEITHER),
        (with_content([{"text": "x"}]), "messages.0.content.0.type", "Field required"),
        (with_content([5]), "messages.0.content.0", NO_OBJECT),
        ({"messages": [3]}, "messages.0", NO_OBJECT),
        ({"messages": None}, "messages", "valid list"),
        ([], None, NO_OBJECT),
        ("text", None, NO_OBJECT),
    ],
)
def test_a_field_has_its_own_name(body: Any, param: str | None, message: str) -> None:
    whole = {"messages": HI, **body} if isinstance(body, dict) else body
    with pytest.raises(InvalidFieldError) as raised:
        parse_body(json.dumps(whole).encode(), ChatCompletionRequest)
    assert raised.value.param == param
    assert str(raised.value).startswith(f"{param}: " if param else NO_OBJECT)
    assert message in str(raised.value)
    for name in ("constrained", "Part", "ChatCompletionRequest", "[key]", "Message"):
        assert name not in str(raised.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidFieldError, match="messages: Field required"):
        parse_body(b"{}", ChatCompletionRequest)
