"""Chunks of choices that interleave, and the whole answer of the same events."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from serve_app.api.openai.chat_answer import (
    AnswerHead,
    ChatCompletion,
    encode_answer,
    finish_reason,
)
from serve_app.api.openai.chat_stream import DONE, encode_stream
from serve_app.chat.calling.tools import ToolCall
from serve_app.chat.events import Delta, Done, Event, PluginCall, Thoughts, Usage
from serve_app.prompt.exchange import Exchange
from tests.support.chat_fakes import CharCodec

HEAD = AnswerHead("chatcmpl-1", 5, "m")
CODEC = CharCodec()


def done(choice: int, reply: str, calls: tuple[ToolCall, ...] = ()) -> Done:
    exchange = Exchange("hi", "", "", "", reply)
    reason: Any = "tool_calls" if calls else "length"
    return Done(choice, reason, Usage(10, 4, 3, 2), choice, exchange, tool_calls=calls)


EVENTS: tuple[Event, ...] = (
    Thoughts(1, "t"),
    Thoughts(0, "u"),
    PluginCall(0, "c", "Calculate", "1", "started"),
    PluginCall(0, "c", "Calculate", "1", "failed", ms=3),
    Delta(0, "", (9,), ()),
    Delta(0, "a", (9,), ()),
    done(1, "", (ToolCall("t", "f", "q", "x"),)),
    Delta(0, "b", (9,), ()),
    done(0, "ab"),
)


class FakeReply:
    """Records whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def __call__(self) -> AsyncGenerator[Event]:
        try:
            for event in EVENTS:
                yield event
        finally:
            self.is_closed = True


async def test_choices_interleave() -> None:
    *chunks, usage, end = [chunk async for chunk in encode_stream(FakeReply()(), HEAD, CODEC, True)]
    assert end == DONE and isinstance(usage, dict)
    choices = [chunk["choices"][0] for chunk in chunks if isinstance(chunk, dict)]
    deltas = [choice["delta"] for choice in choices if choice["index"] == 0]
    call = {"id": "c", "name": "Calculate", "argument": "1"}
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning": "u", "reasoning_content": "u"},
        {"plugin_calls": [{**call, "state": "started"}]},
        {"plugin_calls": [{**call, "state": "failed", "ms": 3}]},
        {"content": "a"},
        {"content": "b"},
        {},
    ]
    function = {"name": "f", "arguments": '{"q": "x"}'}
    *_, called, ended = [choice for choice in choices if choice["index"] == 1]
    assert called["delta"] == {
        "tool_calls": [{"index": 0, "id": "t", "type": "function", "function": function}]
    }
    assert ended["finish_reason"] == "tool_calls" and choices[-1]["finish_reason"] == "length"
    assert usage["usage"]["prompt_tokens"] == 20 and usage["usage"]["total_tokens"] == 26


async def test_the_answer_of_the_same_events() -> None:
    answer = await encode_answer(FakeReply()(), HEAD, CODEC)
    ChatCompletion.model_validate(answer, extra="forbid")
    first, second = answer["choices"]
    assert first["message"]["content"] == "ab" and second["message"]["content"] is None
    assert [call["state"] for call in first["message"]["plugin_calls"]] == ["failed"]
    assert answer["usage"]["completion_tokens"] == 6 and "session_id" not in answer


@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", "stop"), ("cancelled", "stop"), ("content_filter", "content_filter")],
)
def test_reasons_are_openais(reason: Any, told: str) -> None:
    assert finish_reason(replace(done(0, "a"), finish_reason=reason)) == told


async def test_closing_the_stream_closes_the_reply() -> None:
    reply = FakeReply()
    chunks = encode_stream(reply(), HEAD, CODEC)
    await anext(chunks)
    await chunks.aclose()
    assert reply.is_closed
