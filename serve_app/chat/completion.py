"""Raw completions: token ids in, text out, without dialogue, plugins or sessions.

    prompt 0    choice 0 ───── CompletionDelta* CompletionDone       n choices for each prompt,
                choice 1   └── CompletionDelta* CompletionDone       numbered prompt by prompt
    prompt 1    choice 2 ───── …

The other choices of a prompt begin once its first has computed it, so that they find it in the
prefix cache. What comes of a prompt depends neither on the prompts beside it nor on their number.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import DeadlineExceededError, EngineDeadError
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.events import Usage
from serve_app.chat.protocols import ChatModel
from serve_app.chat.request import delta_interval_s
from serve_app.moderation.held_text import HeldText
from serve_app.moderation.hook import Moderation
from serve_app.prompt.exchange import TurnEnd
from serve_app.request_context import current_traceparent
from serve_app.streams import merge, with_timeouts
from serve_app.watch import Watch, Watched, unwatched

NUM_ENCODERS = 2


class Encoder(Protocol):
    """The part of a tokenizer that prompts need."""

    def encode(self, text: str, /) -> list[int]: ...

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str: ...


@dataclass(frozen=True)
class CompletionRequest:
    """`params` hold for each prompt, with `n` choices of it. `deadline` is in `time.monotonic`
    seconds. Prompts of different `owner` share no cached block. Without `is_streamed` nobody reads
    a completion before its end."""

    request_id: str
    prompts: Sequence[Sequence[int]]
    params: SamplingParams
    deadline: float
    owner: str = ""
    is_streamed: bool = True


@dataclass(frozen=True)
class CompletionDelta:
    """New tokens of a choice. `prompt_logprobs` are on its first delta, if they were asked for."""

    choice: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[SampledToken, ...] = ()
    prompt_logprobs: tuple[SampledToken, ...] | None = None


@dataclass(frozen=True)
class CompletionDone:
    """The end of a choice. Only the first choice of a prompt counts the prompt's tokens."""

    choice: int
    finish_reason: TurnEnd
    usage: Usage


CompletionEvent = CompletionDelta | CompletionDone


class Completer:
    """Completes with one model. Holds no state of any request."""

    def __init__(
        self,
        model: ChatModel,
        encoder: Encoder,
        moderation: Moderation | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self._model = model
        self._watch = watch
        self._encoder = encoder
        self._moderation = moderation
        # Threads of their own: the event loop's also look up the store's address.
        self._encoders = ThreadPoolExecutor(NUM_ENCODERS, "encode-raw")

    async def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as ordinary text. 256 KB take most of a second."""

        def encode_all() -> list[list[int]]:
            return [self._encoder.encode(text) for text in texts]

        return await asyncio.get_running_loop().run_in_executor(self._encoders, encode_all)

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[CompletionEvent]:
        """The events of all choices. Closing it aborts whatever still runs.

        Raises ContextLengthError, InvalidRequestError, the engine's errors, and
        DeadlineExceededError if the deadline passes before a choice begins; later it ends the
        choice. Raises ContentRefusedError.
        """
        if self._moderation is not None:
            await self._check_prompts(self._moderation, request)
        choices = [
            self._told(request, each)
            for number, prompt in enumerate(request.prompts)
            for each in _choices_of(request, number, prompt)
        ]
        watched = self._watch(Watched(len(choices)))
        async with aclosing(choices[0] if len(choices) == 1 else merge(*choices)) as events:
            with watched as note:
                async for event in events:
                    note(event)
                    yield event

    async def _check_prompts(self, moderation: Moderation, request: CompletionRequest) -> None:
        texts = (self._encoder.decode(ids, skip_special=False) for ids in request.prompts)
        await moderation.check_input("\n".join(texts), request.deadline - time.monotonic())

    def _told(
        self, request: CompletionRequest, choice: "_Choice"
    ) -> AsyncGenerator[CompletionEvent]:
        """The events of `choice` that may be told."""
        events = self._choice(request, choice)
        if self._moderation is None:
            return events
        return _moderated(self._moderation, choice, request.deadline, events)

    async def _choice(
        self, request: CompletionRequest, choice: "_Choice"
    ) -> AsyncGenerator[CompletionEvent]:
        if choice.waits:
            await choice.has_begun.wait()
        last: TokenDelta | None = None
        num_tokens = 0
        try:
            async with aclosing(self._deltas(request, choice)) as deltas:
                async for last in deltas:
                    choice.has_begun.set()
                    num_tokens += len(last.token_ids)
                    yield _event(choice.index, last)
        except DeadlineExceededError:
            if last is None:
                raise
            last = last._replace(finish_reason="length")
        if last is None or last.finish_reason not in ("stop", "length"):
            raise EngineDeadError("the engine gave up the request")
        is_first = not choice.waits
        usage = Usage(
            prompt_tokens=last.num_prompt_tokens * is_first,
            cached_tokens=last.num_cached_tokens * is_first,
            completion_tokens=num_tokens,
        )
        yield CompletionDone(choice.index, last.finish_reason, usage)

    async def _deltas(
        self, request: CompletionRequest, choice: "_Choice"
    ) -> AsyncGenerator[TokenDelta]:
        def time_left_s() -> float:
            return request.deadline - time.monotonic()

        engine_request = EngineRequest(
            request_id=f"{request.request_id}-{choice.index}",
            prompt_ids=choice.prompt,
            params=choice.params,
            salt=request.owner,
            deadline_s=max(0.0, time_left_s()),
            delta_interval_s=delta_interval_s(request.is_streamed, time_left_s()),
            traceparent=current_traceparent(),
        )
        stream = self._model.generate(engine_request, request.request_id)
        async with aclosing(with_timeouts(stream, time_left_s)) as deltas:
            async for delta in deltas:
                if delta is None:
                    raise DeadlineExceededError("the deadline passed before the reply began")
                yield delta


@dataclass(frozen=True)
class _Choice:
    """Choice number `index` of a request, with `n` of one in its params. The first of a prompt sets
    `has_begun`, which the others wait for."""

    index: int
    prompt: Sequence[int]
    params: SamplingParams
    has_begun: asyncio.Event
    waits: bool


def _choices_of(request: CompletionRequest, number: int, prompt: Sequence[int]) -> list[_Choice]:
    start, has_begun = number * request.params.n, asyncio.Event()
    return [
        _Choice(start + i, prompt, params, has_begun, waits=i > 0)
        for i, params in enumerate(request.params.split())
    ]


def _event(choice: int, delta: TokenDelta) -> CompletionDelta:
    return CompletionDelta(
        choice, delta.token_ids, delta.text, delta.logprobs, delta.prompt_logprobs
    )


async def _moderated(
    moderation: Moderation,
    choice: _Choice,
    deadline: float,
    events: AsyncGenerator[CompletionEvent],
) -> AsyncGenerator[CompletionEvent]:
    """The `events` of a choice, which end before a piece that is refused."""
    held: HeldText[CompletionDelta] = HeldText()
    num_tokens = 0

    async def refuses(text: str) -> bool:
        return bool(await moderation.reason(text, "out", deadline - time.monotonic()))

    async with aclosing(events):
        async for event in events:
            if isinstance(event, CompletionDelta):
                held.add(event)
                num_tokens += len(event.token_ids)
                told, is_refused = await held.ask_due(refuses)
            else:
                is_refused = await refuses(held.question)
                told = [] if is_refused else held.release()
            for delta in told:
                yield delta
            if is_refused:
                if rest := held.cut():
                    yield CompletionDelta(choice.index, (), rest)
                yield _refused(choice, num_tokens)
                return
            if isinstance(event, CompletionDone):
                yield event


def _refused(choice: _Choice, num_tokens: int) -> CompletionDone:
    """The end of a choice whose rest is neither told nor generated."""
    num_prompt_tokens = 0 if choice.waits else len(choice.prompt)
    usage = Usage(prompt_tokens=num_prompt_tokens, completion_tokens=num_tokens)
    return CompletionDone(choice.index, "content_filter", usage)
