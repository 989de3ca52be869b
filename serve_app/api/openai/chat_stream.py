"""The stream of `POST /v1/chat/completions`: chunks of JSON, then `[DONE]`.

    role, then thoughts, plugin calls, text; a last chunk with the finish reason      one choice

Choices may interleave. After all of them comes the usage, if it is asked for.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from serve_app.api.openai.chat_answer import (
    AnswerHead,
    finish_reason,
    plugin_call_json,
    reasoning_json,
)
from serve_app.api.openai.logprobs import logprobs_json
from serve_app.api.openai.tools import tool_call_json
from serve_app.api.openai.usage import add_usage, usage_json
from serve_app.api.tokens import TextTokenizer
from serve_app.chat.events import Delta, Done, Event, PluginCall, Thoughts, Usage
from serve_app.prompt.exchange import shown_thoughts

DONE = "[DONE]"


class ChunkEncoder:
    """The state of one answer's chunks."""

    def __init__(self, head: AnswerHead, tokenizer: TextTokenizer, include_usage: bool) -> None:
        self._head = head.json("chat.completion.chunk")
        self._tokenizer = tokenizer
        self._include_usage = include_usage
        self._begun: set[int] = set()
        self._usage = Usage()

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks of an event, maybe none."""
        if event.choice not in self._begun:
            self._begun.add(event.choice)
            yield self._chunk(event.choice, {"role": "assistant", "content": ""})
        if isinstance(event, Done):
            yield from self._ending(event)
        elif isinstance(event, Thoughts):
            if text := shown_thoughts(event.text):
                yield self._chunk(event.choice, reasoning_json(text))
        elif isinstance(event, PluginCall):
            yield self._chunk(event.choice, {"plugin_calls": [plugin_call_json(event)]})
        elif event.text or event.logprobs:
            yield self._chunk(event.choice, {"content": event.text}, self._logprobs(event))

    def usage_chunk(self) -> dict[str, Any]:
        """The chunk after all choices."""
        return {**self._head, "choices": [], "usage": usage_json(self._usage)}

    def _ending(self, done: Done) -> Iterator[dict[str, Any]]:
        self._usage = add_usage(self._usage, done.usage)
        if done.tool_calls:
            calls = [{"index": i, **tool_call_json(c)} for i, c in enumerate(done.tool_calls)]
            yield self._chunk(done.choice, {"tool_calls": calls})
        chunk = self._chunk(done.choice, {}, reason=finish_reason(done))
        if done.dropped_turns:
            chunk["dropped_turns"] = done.dropped_turns
        yield chunk

    def _logprobs(self, delta: Delta) -> dict[str, Any] | None:
        if not delta.logprobs:
            return None
        return {"content": logprobs_json(delta.logprobs, self._tokenizer), "refusal": None}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head, "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage else chunk


async def encode_stream(
    events: AsyncGenerator[Event],
    head: AnswerHead,
    tokenizer: TextTokenizer,
    include_usage: bool = False,
) -> AsyncGenerator[dict[str, Any] | str]:
    """Each chunk as JSON, then DONE as it is."""
    encoder = ChunkEncoder(head, tokenizer, include_usage)
    async with aclosing(events):
        async for event in events:
            for chunk in encoder.chunks(event):
                yield chunk
    if include_usage:
        yield encoder.usage_chunk()
    yield DONE
