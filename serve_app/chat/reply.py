"""The stateless core: a history and a user's text in, the events of a reply out.

It serves both of MOSS's dialogues: with plugins the reply is the second of two passes, in the
plain dialogue it is the only one. It does not use sessions, the store or HTTP.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import DeadlineExceededError
from serve_app.chat.calling.pictures import NoPictureStore, PictureStore
from serve_app.chat.events import Done, Event, Usage
from serve_app.chat.moderated import check_request, moderated
from serve_app.chat.pass_params import reply_params
from serve_app.chat.passes import StoppedError, run_pass
from serve_app.chat.protocols import ChatModel, PluginClient, Prompts
from serve_app.chat.reply_text import ReplyText
from serve_app.chat.request import Choice, ReplyRequest
from serve_app.chat.thinking import ReplyPrompt, ThinkingStage
from serve_app.errors import forbid_retry
from serve_app.moderation.hook import Moderation
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.fit import Prompt
from serve_app.streams import merge
from serve_app.watch import Watch, Watched, unwatched

NUM_ENCODERS = 4


class Replier:
    """Replies with one model in one dialogue; `thinking` is None in the plain dialogue.

    Holds no state of any request.
    """

    def __init__(
        self,
        model: ChatModel,
        prompts: Prompts,
        thinking: ThinkingStage | None = None,
        moderation: Moderation | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self._model = model
        self._watch = watch
        self._prompts = prompts
        self._thinking = thinking
        self._moderation = moderation
        # Threads of their own: the event loop's also look up the store's address.
        self._encoders = ThreadPoolExecutor(NUM_ENCODERS, "encode")

    @property
    def has_thoughts(self) -> bool:
        """Whether the model thinks before it replies, and so can call plugins and tools."""
        return self._thinking is not None

    async def reply(self, request: ReplyRequest) -> AsyncGenerator[Event]:
        """The events of `request.params.n` choices. Closing it aborts whatever still runs.

        A request without a seed gets a random one. Raises ContextLengthError,
        InvalidRequestError, the engine's errors, and DeadlineExceededError if the deadline passes
        before the reply begins; later it ends the reply. After a call with effects was sent, an
        error says that the request is not to be sent again.
        """
        reply_params(request.params, request.max_length, self._prompts.eom_id)  # checks them early
        has_sent = asyncio.Event()
        with self._watch(_watched(request)) as note:
            try:
                choices = await self._choices(request, has_sent)
                async with aclosing(choices[0] if len(choices) == 1 else merge(*choices)) as events:
                    async for event in events:
                        note(event)
                        yield event
            except Exception as error:
                if has_sent.is_set():
                    forbid_retry(error)
                raise

    async def _choices(
        self, request: ReplyRequest, has_sent: asyncio.Event
    ) -> list[AsyncGenerator[Event]]:
        prompt = request.prompt or await self.prompt(request)
        seed = secrets.randbits(63) if request.params.seed is None else request.params.seed
        first = Choice(request, prompt, 0, seed, asyncio.Event(), {}, has_sent)
        return [self._told(first, index) for index in range(request.params.n)]

    async def prompt(self, request: ReplyRequest) -> Prompt:
        """The prompt of the first pass. Encoding a body of 256 KB takes most of a second.

        Raises ContextLengthError, DeadlineExceededError, and ContentRefusedError.
        """
        if self._moderation is not None:
            await check_request(self._moderation, request)
        build = partial(
            self._prompts.build,
            request.history,
            request.user,
            request.enabled,
            request.max_length,
            request.instructions,
            request.so_far,
        )
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(request.deadline - time.monotonic()):
                return await loop.run_in_executor(self._encoders, build)
        except TimeoutError as error:
            raise DeadlineExceededError("the deadline passed before the reply began") from error

    def _told(self, first: Choice, index: int) -> AsyncGenerator[Event]:
        """The events of choice number `index` that may be told."""
        choice = replace(first, index=index, refused=asyncio.Event())
        events = self._events(choice)
        return events if self._moderation is None else moderated(self._moderation, choice, events)

    async def _events(self, choice: Choice) -> AsyncGenerator[Event]:
        if choice.index > 0:
            await choice.has_begun.wait()
        prompt = _first_prompt(choice)
        if self._thinking is not None and choice.request.so_far is None:
            async with aclosing(self._thinking.run(choice)) as steps:
                async for step in steps:
                    if isinstance(step, ReplyPrompt):
                        prompt = step
                        choice.request.meter.num_tokens += step.num_results_tokens
                    else:
                        yield step
                    if isinstance(step, Done):
                        return
        async with aclosing(self._reply(choice, prompt)) as events:
            async for event in events:
                yield event

    async def _reply(self, choice: Choice, prompt: ReplyPrompt) -> AsyncGenerator[Event]:
        """The last pass. Its deadline ends a reply that has begun as its length does."""
        text = ReplyText(choice.index, prompt.num_items, choice.request.resume)
        try:
            async with aclosing(self._deltas(choice, prompt, text)) as deltas:
                async for delta in deltas:
                    yield text.add(delta)
                    if text.has_ended:  # leaving the pass aborts it
                        break
        except DeadlineExceededError:
            if not text.has_begun:
                raise
        except StoppedError:
            text.finish_reason = "cancelled"
        if (rest := text.end()) is not None:
            yield rest
        yield self._done(choice, prompt, text)

    async def _deltas(
        self, choice: Choice, prompt: ReplyPrompt, text: ReplyText
    ) -> AsyncGenerator[TokenDelta]:
        """What the engine adds to `text`.

        Nothing, once the reply must end: what an earlier run held back may be told by then.
        """
        if text.has_ended:
            return
        if choice.is_stopped:
            raise StoppedError
        if choice.time_left_s <= 0:
            raise DeadlineExceededError("the deadline passed before the reply began")
        request, number = choice.request, prompt.num_passes + 1
        room = request.max_reply_tokens(len(prompt.token_ids), prompt.num_thoughts_tokens)
        params = reply_params(request.params, room, self._prompts.eom_id)
        told_ids = request.resume.reply_ids
        async with aclosing(
            run_pass(self._model, choice, number, prompt.token_ids, params, told_ids)
        ) as deltas:
            async for delta in deltas:
                yield delta

    def _done(self, choice: Choice, prompt: ReplyPrompt, text: ReplyText) -> Done:
        cached = prompt.num_cached_tokens if prompt.num_passes else text.num_cached_tokens
        is_first = choice.index == 0
        usage = Usage(
            prompt_tokens=len(choice.prompt.token_ids) * is_first + prompt.num_results_tokens,
            cached_tokens=cached * is_first,
            completion_tokens=prompt.num_thoughts_tokens + text.num_tokens,
            reasoning_tokens=prompt.num_thoughts_tokens,
        )
        exchange = Exchange(
            user=choice.request.user,
            thoughts=prompt.thoughts,
            commands=prompt.commands,
            results=prompt.results,
            reply=text.text,
        )
        return Done(
            choice.index,
            text.finish_reason,
            usage,
            choice.prompt.dropped_turns,
            exchange,
            prompt_digest=choice.prompt.digest,
        )


def _watched(request: ReplyRequest) -> Watched:
    is_resumed = request.resume.thought_ids is not None or bool(request.resume.reply_ids)
    return Watched(request.params.n, request.session_id, is_resumed, request.stop)


def _first_prompt(choice: Choice) -> ReplyPrompt:
    """The first prompt as the reply's: in the plain dialogue, and after a client's tools."""
    ids, so_far = choice.prompt.token_ids, choice.request.so_far
    if so_far is None:
        return ReplyPrompt(ids)
    return ReplyPrompt(ids, so_far.thoughts, so_far.commands, so_far.results)


def create_replier(
    model: ChatModel,
    plugins: PluginClient,
    prompts: Prompts,
    moderation: Moderation | None = None,
    watch: Watch = unwatched,
    pictures: PictureStore | None = None,
) -> Replier:
    """The Replier for the dialogue that `prompts` is written for. Without `pictures`, a plugin that
    makes some has no result."""
    if not isinstance(prompts, PromptBuilder):
        return Replier(model, prompts, moderation=moderation, watch=watch)
    pictures = pictures or NoPictureStore()
    thinking = ThinkingStage(model, plugins, prompts, pictures)
    return Replier(model, prompts, thinking, moderation, watch)
