"""The body of a chat completion: what it asks, and what is refused."""

from typing import Any

import pytest

from serve_app.api.openai.chat_request import (
    UNSUPPORTED,
    ChatCompletionRequest,
    Serving,
    check_supported,
    reply_request,
    turn_request,
)
from serve_app.errors import UnsupportedParameterError

SERVING = Serving("r", "ann", frozenset({"calculator"}), 2048, 5.0)
USER = {"role": "user", "content": "hi"}
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {"properties": {"q": {"type": "string"}}, "required": ["q"]},
    },
}


def body(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"messages": [USER], **fields})


def test_a_stateless_request() -> None:
    request = reply_request(body(max_completion_tokens=9, n=2), SERVING)
    assert (request.request_id, request.owner, request.deadline) == ("r", "ann", 5.0)
    assert request.enabled == {"calculator"} and request.params.n == 2
    assert (request.max_length, request.max_completion_tokens) == (2048, 9)
    assert request.params.max_tokens > 2048, "the context bounds it"


def test_tools_take_the_place_of_plugins() -> None:
    request = reply_request(body(tools=[TOOL]), SERVING)
    assert not request.enabled and [tool.name for tool in request.tools] == ["f"]
    none = reply_request(body(tools=[TOOL], tool_choice="none"), SERVING)
    assert not none.enabled and not none.tools
    assert reply_request(body(tools=[TOOL], parallel_tool_calls=False), SERVING).max_tool_calls == 1


def test_a_session_keeps_its_own_values_where_the_request_has_none() -> None:
    turn = turn_request(body(session_id="s", temperature=0, top_p=None, plugins=[]), SERVING, "k")
    assert turn.named is not None
    assert {"temperature", "plugins"} <= turn.named and "top_p" not in turn.named
    assert (turn.uid, turn.must_exist, turn.idempotency_key) == ("s", True, "k")


def test_a_fingerprint_is_of_what_is_asked() -> None:
    def of(**fields: Any) -> str:
        return turn_request(body(session_id="s", **fields), SERVING, None).fingerprint

    same: list[dict[str, Any]] = [
        {},
        {"stream": True, "user": "u", "model": "m", "unknown": 1, "n": None},
    ]
    assert len({of(**fields) for fields in same}) == 1
    others: list[dict[str, Any]] = [
        {"temperature": 0},
        {"seed": 5},
        {"plugins": []},
        {"plugins": ["a", "b"]},
        {"messages": [{**USER, "content": "ho"}]},
        {"logprobs": True},
    ]
    assert len({of(**fields) for fields in [{}, *others]}) == len(others) + 1
    assert of(plugins=["b", "a", "a"]) == of(plugins=["a", "b"])


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_honoured_is_refused(name: str) -> None:
    nothing: list[Any] = [None, False, [], {}, ""]
    for empty in nothing:
        check_supported(body(**{name: empty}), True)
    for value in (True, ["x"], {"x": 1}, "x", 1):
        with pytest.raises(UnsupportedParameterError) as raised:
            check_supported(body(**{name: value}), True)
        assert raised.value.param == name


def test_tools_need_a_model_that_thinks_and_no_session() -> None:
    check_supported(body(tools=[TOOL]), True)
    called = {"role": "tool", "content": "x", "tool_call_id": "c"}
    for fields, thinks in (
        ({"tools": [TOOL]}, False),
        ({"messages": [USER, called]}, False),
        ({"tools": [TOOL], "session_id": "s"}, True),
    ):
        with pytest.raises(UnsupportedParameterError):
            check_supported(body(**fields), thinks)
