"""Tools in OpenAI's form, to those that MOSS can call: functions with one required string.

A call of MOSS has one string argument; all else is refused, rather than called wrongly.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from serve_app.chat.calling.tools import Tool, ToolCall
from serve_app.errors import InvalidFieldError, UnsupportedParameterError

MAX_TOOLS = 128
_NAME = r"^[A-Za-z0-9_-]{1,64}$"
_PARAMETER = re.compile(r"[\w-]{1,64}")
_IGNORING = ConfigDict(strict=True, frozen=True, extra="ignore")


class FunctionDefinition(BaseModel):
    """`parameters` is a JSON Schema of an object."""

    model_config = _IGNORING

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolDefinition(BaseModel):
    """A tool that the client offers."""

    model_config = _IGNORING

    type: str
    function: FunctionDefinition | None = None


class CalledFunction(BaseModel):
    """`arguments` is a JSON object as text."""

    model_config = _IGNORING

    name: str = Field(pattern=_NAME)
    arguments: str = ""


class MessageToolCall(BaseModel):
    """A call in an assistant's message."""

    model_config = _IGNORING

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


def read_tools(definitions: Sequence[ToolDefinition]) -> tuple[Tool, ...]:
    """Raises InvalidFieldError for a tool that is no function with one required string."""
    tools = tuple(_tool(index, definition) for index, definition in enumerate(definitions))
    if len({tool.name for tool in tools}) != len(tools):
        raise InvalidFieldError("tools: two have the same name", "tools")
    return tools


def check_tool_choice(choice: object) -> None:
    """Raises UnsupportedParameterError for anything but "auto" and "none"."""
    if choice not in (None, "auto", "none"):
        raise UnsupportedParameterError(
            'tool_choice: MOSS cannot be made to call a tool; "auto" and "none" are possible',
            "tool_choice",
        )


def read_tool_call(call: MessageToolCall) -> ToolCall:
    """A call that an earlier response had, from the client's copy."""
    parameter, argument = _argument(call.function.arguments)
    return ToolCall(call.id, call.function.name, parameter, argument)


def tool_call_json(call: ToolCall) -> dict[str, Any]:
    """The call in a response."""
    arguments = json.dumps({call.parameter: call.argument}, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _tool(index: int, definition: ToolDefinition) -> Tool:
    where = f"tools.{index}"
    function = definition.function
    if definition.type != "function":
        raise UnsupportedParameterError(f"{where}: a tool is a function here", where)
    if function is None:
        raise InvalidFieldError(f"{where}.function: it is missing", f"{where}.function")
    parameter = _one_required_string(function.parameters or {})
    if parameter is None:
        where = f"{where}.function.parameters"
        raise InvalidFieldError(f"{where}: MOSS needs exactly one required string", where)
    return Tool(function.name, parameter, function.description or "")


def _one_required_string(schema: dict[str, Any]) -> str | None:
    required, properties = schema.get("required"), schema.get("properties")
    if not (isinstance(required, list) and len(required) == 1 and isinstance(properties, dict)):
        return None
    name = required[0]
    if not (isinstance(name, str) and _PARAMETER.fullmatch(name)):
        return None
    kind = properties.get(name)
    return name if isinstance(kind, dict) and kind.get("type") == "string" else None


def _argument(arguments: str) -> tuple[str, str]:
    """The parameter and its text; whatever else `arguments` may be is the text itself."""
    try:
        value = from_json(arguments)
    except ValueError:
        return "", arguments
    if isinstance(value, dict) and len(value) == 1:
        ((name, argument),) = value.items()
        if isinstance(argument, str):
            return name, argument
    return "", arguments
