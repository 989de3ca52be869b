"""MOSS's two passes: thoughts and commands, then plugins, then the reply. No session, no store.

Commands are read from what the model wrote in the first pass, from nowhere else, and once a turn.
Whatever a plugin does, the turn goes on: late, broken or refused is `No result.`
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from moss_tp.dialogue import neutralise
from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import ContextLengthError, DeadlineExceededError, EngineDeadError
from moss_tp.sampling_params import SamplingParams
from plugins_svc.calls import Call, parse_commands, render_commands
from plugins_svc.results import PluginOutput, format_results
from serve_app.prompt import MIN_REPLY_TOKENS, Prompt, PromptBuilder, Thinking
from serve_app.protocols import ChatModel, PluginClient

logger = logging.getLogger(__name__)

Outcome = tuple[Call, PluginOutput]


@dataclass(frozen=True)
class Generation:
    """What both passes of one turn need. `deadline` is in `time.monotonic` seconds."""

    request_id: str
    session_id: str
    prompt: Prompt
    max_length: int
    params: SamplingParams
    enabled: frozenset[str]
    deadline: float


@dataclass(frozen=True)
class ReplyDelta:
    """A piece of the reply, never empty."""

    text: str


@dataclass(frozen=True)
class Answer:
    """All that a turn wrote, as a Turn stores it."""

    thoughts: str
    commands: str
    results: str
    reply: str


class TwoPassGenerator:
    """Runs turns on one model and its plugins; holds nothing of any turn."""

    def __init__(
        self,
        model: ChatModel,
        plugins: PluginClient,
        prompts: PromptBuilder,
        plugin_timeout_s: float = 5,
    ) -> None:
        self._model = model
        self._plugins = plugins
        self._prompts = prompts
        self._plugin_timeout_s = plugin_timeout_s

    async def run(self, generation: Generation) -> AsyncGenerator[ReplyDelta | Answer]:
        """Pieces of the reply, then the Answer. Closing it aborts whatever runs.

        Raises DeadlineExceededError when the deadline passes before the reply begins; after
        that it ends the reply, as its length does.
        """
        thinking = await self._think(generation)
        calls = parse_commands(thinking.commands, generation.enabled)
        outcomes = await self._run_calls(calls, generation.deadline)
        thinking, results, prompt_ids = self._second_prompt(generation, thinking, outcomes)
        pieces: list[str] = []
        async with aclosing(self._reply(generation, prompt_ids)) as reply:
            async for text in reply:
                pieces.append(text)
                yield ReplyDelta(text)
        yield Answer(thinking.thoughts, thinking.commands, results, "".join(pieces))

    async def _think(self, generation: Generation) -> Thinking:
        """The first pass. It may use half of the room, so that the reply has the other."""
        room = generation.max_length - len(generation.prompt.token_ids)
        params = replace(
            generation.params,
            max_tokens=max(1, room // 2),
            stop_token_ids=(self._prompts.eoc_id, self._prompts.eom_id),
        )
        ids: list[int] = []
        async with aclosing(self._tokens(generation, 1, generation.prompt.token_ids, params)) as it:
            async for delta in it:
                ids.extend(delta.token_ids)
        return self._prompts.read_thinking(ids)

    def _second_prompt(
        self, generation: Generation, thinking: Thinking, outcomes: Sequence[Outcome]
    ) -> tuple[Thinking, str, list[int]]:
        """Thinking, Results body and prompt of the reply: as they are, or as much as fits."""
        nothing = [(call, PluginOutput.no_result()) for call, _ in outcomes]
        none = self._prompts.no_thinking
        for base, told in ((thinking, outcomes), (thinking, nothing), (none, ())):
            commands = render_commands([call for call, _ in told])
            thought = self._prompts.with_commands(base, commands)
            results = format_results(told)
            ids = self._prompts.reply_prompt(generation.prompt.token_ids, thought, results)
            if len(ids) + MIN_REPLY_TOKENS <= generation.max_length:
                return thought, results, ids
        raise ContextLengthError("no room for a reply")

    async def _reply(self, generation: Generation, prompt_ids: list[int]) -> AsyncGenerator[str]:
        """Pieces of the reply's text, without the space that follows its marker."""
        params = replace(
            generation.params,
            max_tokens=generation.max_length - len(prompt_ids),
            stop_token_ids=(self._prompts.eom_id,),
        )
        has_begun = False
        try:
            async with aclosing(self._tokens(generation, 2, prompt_ids, params)) as deltas:
                async for delta in deltas:
                    if not delta.text:
                        continue
                    text = delta.text if has_begun else delta.text.removeprefix(" ")
                    has_begun = True
                    if text:
                        yield text
        except DeadlineExceededError:
            if not has_begun:
                raise

    async def _tokens(
        self, generation: Generation, number: int, prompt_ids: list[int], params: SamplingParams
    ) -> AsyncGenerator[TokenDelta]:
        """One pass, to its honest end: a stream that breaks off is an error, not a short text."""
        request_id = f"{generation.request_id}-{number}"
        stream = self._model.generate(request_id, prompt_ids, params, generation.session_id)
        reason = None
        try:
            while (delta := await _next_before(generation.deadline, stream)) is not None:
                reason = delta.finish_reason
                yield delta
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
        if reason not in ("stop", "length"):
            raise EngineDeadError("the engine gave up the request")

    async def _run_calls(self, calls: Sequence[Call], deadline: float) -> list[Outcome]:
        outputs = await asyncio.gather(*(self._run_call(call, deadline) for call in calls))
        return list(zip(calls, outputs, strict=True))

    async def _run_call(self, call: Call, deadline: float) -> PluginOutput:
        timeout = min(self._plugin_timeout_s, deadline - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                output = await self._plugins.run(call)
        except Exception as error:  # a plugin's failure, of whatever kind, is not the turn's
            logger.warning("plugin %s gave no result: %s", call.plugin, type(error).__name__)
            return PluginOutput.no_result()
        return PluginOutput(output.ok, tuple(neutralise(value) for value in output.values))


async def _next_before(deadline: float, stream: AsyncIterator[TokenDelta]) -> TokenDelta | None:
    """The next delta, None at the end; DeadlineExceededError when it does not come in time."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()) as timer:
            return await anext(stream, None)
    except TimeoutError as error:
        if timer.expired():
            raise DeadlineExceededError("the deadline passed before the reply began") from error
        raise
