"""OpenAI's messages to a conversation of MOSS: its system text, past exchanges and the last one.

A turn of MOSS is a user's text, thoughts, one round of calls with their results, and a reply, so
equal neighbours are joined and all calls of a turn are one round. It knows no tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from moss_tp.dialogue import NO_RESULTS
from serve_app.api.openai.tools import MessageToolCall, read_tool_call
from serve_app.chat.calling.tools import ToolCall, format_tool_results, render_tool_calls
from serve_app.errors import InvalidFieldError, UnsupportedParameterError
from serve_app.prompt.exchange import Exchange

_IGNORING = ConfigDict(strict=True, frozen=True, extra="ignore")


class Part(BaseModel):
    """A part of a message's content. Only text is read."""

    model_config = _IGNORING

    type: str
    text: str | None = None
    refusal: str | None = None


class Message(BaseModel):
    """A message. `reasoning_content` is another name of `reasoning`; plugin calls are ignored."""

    model_config = _IGNORING

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[MessageToolCall] | None = Field(None, max_length=128)
    tool_call_id: str | None = None


@dataclass(frozen=True)
class Conversation:
    """What to reply to. With `so_far` the reply is to `user`'s text and the results of tools."""

    system: str
    history: tuple[Exchange, ...]
    user: str
    so_far: Exchange | None = None


@dataclass
class _Turn:
    """One exchange while its messages are read."""

    users: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: dict[str, list[str]] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)
    is_answered: bool = False  # something of the assistant follows the user's text

    @property
    def user(self) -> str:
        return "\n".join(self.users)

    def exchange(self) -> Exchange:
        """As history. Results are not shown again."""
        thoughts, commands = "\n".join(self.thoughts), render_tool_calls(self.calls)
        return Exchange(self.user, thoughts, commands, NO_RESULTS, "\n".join(self.replies))

    def so_far(self) -> Exchange:
        """Up to the reply. What was said beside the calls counts as thoughts."""
        thoughts, commands = "\n".join(self.thoughts + self.replies), render_tool_calls(self.calls)
        answers = [(call, "\n".join(self.results[call.id])) for call in self.calls]
        return Exchange(self.user, thoughts, commands, format_tool_results(answers), "")


def read_messages(messages: Sequence[Message]) -> Conversation:
    """Raises InvalidFieldError if they are no conversation whose next message is the assistant's,
    and UnsupportedParameterError for images, audio and files."""
    if not messages or messages[-1].role not in ("user", "tool"):
        raise InvalidFieldError("messages: the last one must be a user's or a tool's", "messages")
    system: list[str] = []
    turns: list[_Turn] = []
    for index, message in enumerate(messages):
        text = _text(index, message)
        if message.role in ("system", "developer"):
            system.append(text)
        elif message.role == "tool":
            _add_result(turns, index, message, text)
        else:
            _add(turns, message, text)
    *past, last = turns
    history = tuple(turn.exchange() for turn in past)
    so_far = _so_far(last) if messages[-1].role == "tool" else None
    return Conversation("\n".join(filter(None, system)), history, last.user, so_far)


def read_new_message(messages: Sequence[Message]) -> str:
    """The text of the one user's message that continues a session. Raises InvalidFieldError."""
    if len(messages) != 1 or messages[0].role != "user":
        raise InvalidFieldError(
            "messages: with session_id there must be one, a new one of the user's", "messages"
        )
    text = _text(0, messages[0])
    if not text:  # stateless it is taken, as by OpenAI and vLLM; a stored turn has a user's text
        raise InvalidFieldError("messages.0.content: it is empty", "messages.0.content")
    return text


def _add(turns: list[_Turn], message: Message, text: str) -> None:
    """Adds a user's or an assistant's message."""
    if not turns or (message.role == "user" and turns[-1].is_answered):
        turns.append(_Turn())
    turn = turns[-1]
    if message.role == "user":
        turn.users.append(text)
        return
    turn.is_answered = True
    turn.thoughts += filter(None, [message.reasoning or message.reasoning_content])
    turn.replies += filter(None, [text])
    turn.calls += map(read_tool_call, message.tool_calls or ())


def _add_result(turns: list[_Turn], index: int, message: Message, text: str) -> None:
    ids = {call.id for call in turns[-1].calls} if turns else set()
    if message.tool_call_id is None or message.tool_call_id not in ids:
        where = f"messages.{index}.tool_call_id"
        raise InvalidFieldError(f"{where}: no call before it has this id", where)
    turns[-1].results.setdefault(message.tool_call_id, []).append(text)


def _so_far(turn: _Turn) -> Exchange:
    if any(call.id not in turn.results for call in turn.calls):
        raise InvalidFieldError("messages: a tool call has no tool message", "messages")
    return turn.so_far()


def _text(index: int, message: Message) -> str:
    """The content as one text, as vLLM joins parts. It may be "", but not without a part."""
    content = message.content
    if isinstance(content, str):
        return content
    if not content and message.role != "assistant":
        where = f"messages.{index}.content"
        raise InvalidFieldError(f"{where}: it is missing", where)
    parts = enumerate(content or ())
    return "\n".join(_part_text(f"messages.{index}.content.{i}", part) for i, part in parts)


def _part_text(where: str, part: Part) -> str:
    text = {"text": part.text, "refusal": part.refusal}.get(part.type)
    if part.type not in ("text", "refusal"):
        raise UnsupportedParameterError(f"{where}: MOSS reads text only", where)
    if text is None:
        raise InvalidFieldError(f"{where}.{part.type}: it is missing", f"{where}.{part.type}")
    return text
