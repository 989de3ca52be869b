"""The answers of `POST /v1/completions`, whole or as a stream: one encoder for both.

    text of the prompt, if it is echoed; text of the reply; the finish reason      one choice

Choices may interleave in a stream.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from moss_tp.sampling.row import SampledToken
from serve_app.api.openai.text_logprobs import TextLogprobs, TextScorer, join_logprobs
from serve_app.api.openai.usage import CompletionUsage, add_usage, usage_json
from serve_app.api.tokens import TextTokenizer
from serve_app.chat.completion import CompletionDelta, CompletionDone, CompletionEvent
from serve_app.chat.events import Usage

DONE = "[DONE]"


class CompletionChoice(BaseModel):
    """One text."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    """The choices of all prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None


@dataclass(frozen=True)
class Asked:
    """What an answer is made for: `n` choices of each of `prompts`, whose `texts` are echoed if
    they are there. `has_logprobs` if they are asked for. `created` is in seconds since 1970."""

    id: str
    created: int
    model: str
    n: int
    prompts: Sequence[Sequence[int]]
    texts: Sequence[str] | None
    has_logprobs: bool

    @property
    def head(self) -> dict[str, Any]:
        """The fields that all parts of an answer share."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
        }


class ChoiceEncoder:
    """The state of one answer. What it yields are choices as in a chunk of a stream."""

    def __init__(self, asked: Asked, tokenizer: TextTokenizer) -> None:
        self._asked = asked
        self._tokenizer = tokenizer
        self._scorers: dict[int, TextScorer] = {}  # of the choices that have begun
        self._scores: dict[int, Sequence[SampledToken]] = {}  # by prompt
        self.usage = Usage()

    def parts(self, event: CompletionEvent) -> Iterator[dict[str, Any]]:
        """The parts of choices that an event tells of, maybe none."""
        is_first = event.choice not in self._scorers
        scorer = self._scorers.setdefault(event.choice, TextScorer(self._tokenizer))
        if isinstance(event, CompletionDone):
            self.usage = add_usage(self.usage, event.usage)
            yield _part(event.choice, "", None, event.finish_reason)
            return
        if is_first and self._asked.texts is not None:
            yield self._echo(event, scorer, self._asked.texts)
        if event.text or event.logprobs:
            logprobs = scorer.reply(event.logprobs) if self._asked.has_logprobs else None
            yield _part(event.choice, event.text, logprobs)

    def _echo(
        self, event: CompletionDelta, scorer: TextScorer, texts: Sequence[str]
    ) -> dict[str, Any]:
        """The prompt. Its first choice, which begins first, has the scores of all."""
        number = event.choice // self._asked.n
        if event.prompt_logprobs is not None:
            self._scores[number] = event.prompt_logprobs
        logprobs = None
        if self._asked.has_logprobs:
            logprobs = scorer.prompt(self._asked.prompts[number], self._scores[number])
        return _part(event.choice, texts[number], logprobs)


async def encode_completion(
    events: AsyncGenerator[CompletionEvent], asked: Asked, tokenizer: TextTokenizer
) -> dict[str, Any]:
    """The Completion when all choices are done."""
    encoder = ChoiceEncoder(asked, tokenizer)
    choices: dict[int, list[dict[str, Any]]] = {}
    async with aclosing(events):
        async for event in events:
            for part in encoder.parts(event):
                choices.setdefault(event.choice, []).append(part)
    joined = [_join(choices[index], asked.has_logprobs) for index in sorted(choices)]
    return {**asked.head, "choices": joined, "usage": usage_json(encoder.usage)}


async def encode_completion_stream(
    events: AsyncGenerator[CompletionEvent],
    asked: Asked,
    tokenizer: TextTokenizer,
    include_usage: bool = False,
) -> AsyncGenerator[dict[str, Any] | str]:
    """Each chunk as JSON, then DONE as it is."""
    encoder = ChoiceEncoder(asked, tokenizer)
    usage = {"usage": None} if include_usage else {}
    async with aclosing(events):
        async for event in events:
            for part in encoder.parts(event):
                yield {**asked.head, "choices": [part], **usage}
    if include_usage:
        yield {**asked.head, "choices": [], "usage": usage_json(encoder.usage)}
    yield DONE


def _join(parts: Sequence[dict[str, Any]], has_logprobs: bool) -> dict[str, Any]:
    """A whole choice. Its last part has the finish reason."""
    scored = [part["logprobs"] for part in parts if part["logprobs"] is not None]
    return {
        **parts[-1],
        "text": "".join(part["text"] for part in parts),
        "logprobs": join_logprobs(scored) if has_logprobs else None,
    }


def _part(
    index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
