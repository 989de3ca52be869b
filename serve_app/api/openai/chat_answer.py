"""The answer of `POST /v1/chat/completions` as JSON, and its models for a description of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from serve_app.api.openai.logprobs import ChoiceLogprobs, logprobs_json
from serve_app.api.openai.tools import MessageToolCall, tool_call_json
from serve_app.api.openai.usage import CompletionUsage, add_usage, usage_json
from serve_app.api.tokens import TextTokenizer
from serve_app.chat.events import Delta, Done, Event, PluginCall, Thoughts, Usage
from serve_app.prompt.exchange import TurnEnd, shown_thoughts

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
_FINISH_REASONS: dict[TurnEnd, FinishReason] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


class PluginCallObject(BaseModel):
    """A plugin call; `output` is text, a search's items, or images; it is untrusted."""

    id: str
    name: str
    argument: str
    state: Literal["started", "done", "failed"]
    output: Any = None
    ms: int | None = None


class AnswerMessage(BaseModel):
    """`reasoning` are Inner Thoughts, and `reasoning_content` the same."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    plugin_calls: list[PluginCallObject] | None = None
    tool_calls: list[MessageToolCall] | None = None


class Choice(BaseModel):
    """One reply."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """`dropped_turns` of the oldest exchanges did not fit into the prompt."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    session_id: str | None = None
    dropped_turns: int | None = None


@dataclass(frozen=True)
class AnswerHead:
    """What all chunks of an answer share. `created` is in seconds since 1970."""

    id: str
    created: int
    model: str
    session_id: str | None = None

    def json(self, kind: str) -> dict[str, Any]:
        """The first fields of an answer or chunk."""
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return head if self.session_id is None else {**head, "session_id": self.session_id}


@dataclass
class _Choice:
    """One reply while its events arrive."""

    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] | None = None
    done: Done | None = None

    def json(self, index: int) -> dict[str, Any]:
        assert self.done is not None  # every choice ends with one
        tool_calls = [tool_call_json(call) for call in self.done.tool_calls]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if tool_calls else self.done.exchange.reply,
            "refusal": None,
        }
        if self.thoughts:
            message |= reasoning_json("".join(self.thoughts))
        if self.calls:
            message["plugin_calls"] = self.calls
        if tool_calls:
            message["tool_calls"] = tool_calls
        logprobs = None if self.logprobs is None else {"content": self.logprobs, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": finish_reason(self.done),
        }


async def encode_answer(
    events: AsyncGenerator[Event], head: AnswerHead, tokenizer: TextTokenizer
) -> dict[str, Any]:
    """The ChatCompletion when all choices are done."""
    choices: dict[int, _Choice] = {}
    usage, dropped_turns = Usage(), 0
    async with aclosing(events):
        async for event in events:
            choice = choices.setdefault(event.choice, _Choice())
            if isinstance(event, Thoughts):
                choice.thoughts += filter(None, [shown_thoughts(event.text)])
            elif isinstance(event, PluginCall):
                choice.calls += [] if event.state == "started" else [plugin_call_json(event)]
            elif isinstance(event, Delta):
                if event.logprobs:
                    choice.logprobs = choice.logprobs or []
                    choice.logprobs += logprobs_json(event.logprobs, tokenizer)
            else:
                choice.done, dropped_turns = event, event.dropped_turns
                usage = add_usage(usage, event.usage)
    answer = head.json("chat.completion")
    answer["choices"] = [choices[index].json(index) for index in sorted(choices)]
    answer["usage"] = usage_json(usage)
    return answer | ({"dropped_turns": dropped_turns} if dropped_turns else {})


def finish_reason(done: Done) -> FinishReason:
    """OpenAI knows no reply that a client stopped."""
    return _FINISH_REASONS.get(done.finish_reason, "stop")


def reasoning_json(text: str) -> dict[str, Any]:
    """Inner Thoughts, by both names that clients read."""
    return {"reasoning": text, "reasoning_content": text}


def plugin_call_json(call: PluginCall) -> dict[str, Any]:
    """A plugin call as clients see it; the output is there when it is done."""
    encoded = {name: getattr(call, name) for name in ("id", "name", "argument", "state")}
    if isinstance(call.output, str):
        encoded["output"] = call.output
    elif call.output is not None:
        encoded["output"] = [asdict(item) for item in call.output]
    return encoded if call.ms is None else {**encoded, "ms": call.ms}
