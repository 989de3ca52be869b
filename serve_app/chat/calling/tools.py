"""A client's tools: functions that the client runs itself, which the model calls like plugins.

A call of MOSS has one string argument and no escapes. Calls are read from what the model wrote in
its first pass only; names, arguments and results that a client sends are untrusted text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moss_tp.dialogue import NO_RESULTS, neutralise_output
from plugins_svc.protocol.calls import MAX_CALLS as MAX_PLUGIN_CALLS
from plugins_svc.protocol.calls import NO_CALLS
from plugins_svc.sdk.result_format import NO_RESULT

MAX_TOOL_CALLS = MAX_PLUGIN_CALLS
MAX_LABEL_CHARS = 200


@dataclass(frozen=True)
class Tool:
    """A function `name` with one string `parameter`. `description` is for the model."""

    name: str
    parameter: str
    description: str = ""

    @property
    def capability_line(self) -> str:
        """The line that offers it, in the form of MOSS's capability lines."""
        label = " ".join(self.description.split())[:MAX_LABEL_CHARS].rstrip(" .:")
        return f"- {label or self.name}: enabled. API: {self.name}({self.parameter})"


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool: `name("argument")`, the value of the tool's `parameter`."""

    id: str
    name: str
    parameter: str
    argument: str

    def __str__(self) -> str:
        """As Commands write it. An argument from a client may hold what the grammar cannot."""
        argument = " ".join(self.argument.replace('"', "'").split("\n"))
        return f'{self.name}("{argument}")'


def capability_lines(tools: Sequence[Tool]) -> str:
    """The lines that offer `tools`, each with its newline."""
    return "".join(f"{tool.capability_line}\n" for tool in tools)


def parse_tool_calls(
    commands: str, tools: Sequence[Tool], id_prefix: str, max_calls: int = MAX_TOOL_CALLS
) -> tuple[ToolCall, ...]:
    """The first `max_calls` calls of `tools` in a Commands body, numbered from 0 in their ids."""
    if not tools:
        return ()
    names = "|".join(re.escape(tool.name) for tool in tools)
    found = re.finditer(rf'(?<![\w-])({names})\("([^"\n]*)"\)', commands)
    parameters = {tool.name: tool.parameter for tool in tools}
    return tuple(
        ToolCall(f"{id_prefix}{index}", call[1], parameters[call[1]], call[2])
        for index, call in zip(range(min(max_calls, MAX_TOOL_CALLS)), found, strict=False)
    )


def render_tool_calls(calls: Sequence[ToolCall]) -> str:
    """The Commands body with `calls`."""
    return ", ".join(map(str, calls)) or NO_CALLS


def format_tool_results(answers: Sequence[tuple[ToolCall, str]]) -> str:
    """The body of Results: a block a call, in the form of MOSS's plugins.

    What a tool answered is neutralised, and a call is as the Commands have it.
    """
    if not answers:
        return NO_RESULTS
    blocks = (f"{call} =>\n{text.strip() or NO_RESULT}" for call, text in answers)
    return neutralise_output("\n".join(["", *blocks, ""]))
