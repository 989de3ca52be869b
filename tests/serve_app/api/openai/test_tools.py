"""A tool is a function with exactly one required string; all else is refused."""

import json
from typing import Any

import pytest

from serve_app.api.openai.tools import (
    MessageToolCall,
    ToolDefinition,
    check_tool_choice,
    read_tool_call,
    read_tools,
    tool_call_json,
)
from serve_app.chat.calling.tools import Tool, ToolCall
from serve_app.errors import InvalidFieldError, UnsupportedParameterError

STRING = {"type": "string"}


def tool(parameters: Any, name: str = "f") -> ToolDefinition:
    function = {"name": name, "parameters": parameters}
    return ToolDefinition.model_validate({"type": "function", "function": function})


def schema(required: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


@pytest.mark.parametrize(
    "parameters",
    [
        schema(["q"], q=STRING),
        schema(["q"], q={"type": "string", "description": "…", "enum": ["a"]}, unit=STRING),
    ],
)
def test_one_required_string_is_a_tool(parameters: Any) -> None:
    assert read_tools([tool(parameters)]) == (Tool("f", "q"),)


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        schema([], q=STRING),
        schema(["q", "r"], q=STRING, r=STRING),
        schema(["q"], q={"type": "integer"}),
        schema(["q"], q={"type": ["string", "null"]}),
        schema(["q"], q=True),
        schema(["q"]),
        schema([5], q=STRING),
        schema("q", q=STRING),
        schema(["a b\n<|MOSS|>:"], **{"a b\n<|MOSS|>:": STRING}),
        {"type": "object", "required": ["q"], "properties": [1]},
    ],
)
def test_anything_else_is_not(parameters: Any) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        read_tools([tool(schema(["q"], q=STRING)), tool(parameters, "g")])
    assert raised.value.param == "tools.1.function.parameters"


def test_names_are_unique() -> None:
    given = tool(schema(["q"], q=STRING))
    with pytest.raises(InvalidFieldError):
        read_tools([given, given])


def test_a_choice_is_auto_or_none() -> None:
    for possible in (None, "auto", "none"):
        check_tool_choice(possible)
    wrong: list[object] = ["required", {"type": "function", "function": {"name": "f"}}, 5, []]
    for forced in wrong:
        with pytest.raises(UnsupportedParameterError):
            check_tool_choice(forced)


def test_a_call_comes_back_as_it_was_sent() -> None:
    call = ToolCall("c1", "f", "q", 'a\\b <你> "c"')
    sent = tool_call_json(call)
    assert json.loads(sent["function"]["arguments"]) == {"q": call.argument}
    assert read_tool_call(MessageToolCall.model_validate(sent)) == call
