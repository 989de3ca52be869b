"""MOSS's two passes: thoughts and commands, then plugins, then the reply. No session, no store.

Commands are read from what the model wrote in the first pass, from nowhere else, and once a turn.
Whatever a plugin does, the turn goes on: late, broken or refused is `No result.`
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from moss_tp.dialogue import neutralise_output
from moss_tp.errors import ContextLengthError
from plugins_svc.protocol.calls import Call, parse_commands, render_commands
from plugins_svc.protocol.citations import CitationFilter
from plugins_svc.protocol.results import format_results, num_items
from plugins_svc.sdk.output import PluginOutput, check_output
from serve_app.chat.generation import Answer, Generation, ReplyDelta
from serve_app.chat.passes import stream_reply, stream_tokens
from serve_app.chat.protocols import ChatModel, PluginClient
from serve_app.prompt.builder import PromptBuilder, Thinking
from serve_app.prompt.fit import MIN_REPLY_TOKENS

logger = logging.getLogger(__name__)

Outcome = tuple[Call, PluginOutput]


@dataclass(frozen=True)
class _ReplyPrompt:
    """What the second pass continues, and how many items its Results show."""

    thinking: Thinking
    results: str
    num_items: int
    token_ids: list[int]


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
        """See `ReplyGenerator.run`."""
        thinking = await self._think(generation)
        calls = parse_commands(thinking.commands, generation.enabled)
        outcomes = await self._run_calls(calls, generation.deadline)
        prompt = self._reply_prompt(generation, thinking, outcomes)
        pieces: list[str] = []
        async with aclosing(self._reply(generation, prompt)) as reply:
            async for text in reply:
                pieces.append(text)
                yield ReplyDelta(text)
        thinking = prompt.thinking
        yield Answer(thinking.thoughts, thinking.commands, prompt.results, "".join(pieces))

    async def _think(self, generation: Generation) -> Thinking:
        """The first pass. It may use half of the room, so that the reply has the other."""
        prompt_ids = generation.prompt.token_ids
        params = replace(
            generation.params,
            max_tokens=max(1, (generation.max_length - len(prompt_ids)) // 2),
            stop_token_ids=(self._prompts.eoc_id, self._prompts.eom_id),
        )
        ids: list[int] = []
        async with aclosing(
            stream_tokens(self._model, generation, 1, prompt_ids, params)
        ) as deltas:
            async for delta in deltas:
                ids.extend(delta.token_ids)
        return self._prompts.read_thinking(ids)

    def _reply_prompt(
        self, generation: Generation, thinking: Thinking, outcomes: Sequence[Outcome]
    ) -> _ReplyPrompt:
        """The second pass's prompt: with everything, or as much as fits."""
        nothing = [(call, PluginOutput.no_result()) for call, _ in outcomes]
        none = self._prompts.no_thinking
        for base, told in ((thinking, outcomes), (thinking, nothing), (none, ())):
            commands = render_commands([call for call, _ in told])
            thought = self._prompts.with_commands(base, commands)
            results = format_results(told, neutralise_output)
            ids = self._prompts.reply_prompt(generation.prompt.token_ids, thought, results)
            if len(ids) + MIN_REPLY_TOKENS <= generation.max_length:
                return _ReplyPrompt(thought, results, num_items(told), ids)
        raise ContextLengthError("no room for a reply")

    async def _reply(self, generation: Generation, prompt: _ReplyPrompt) -> AsyncGenerator[str]:
        """Pieces of the reply, none empty, with citations of this turn's Results only."""
        citations = CitationFilter(prompt.num_items)
        async with aclosing(
            stream_reply(self._model, generation, 2, prompt.token_ids, self._prompts.eom_id)
        ) as reply:
            async for text in reply:
                if kept := citations.feed(text):
                    yield kept
        if rest := citations.end():
            yield rest

    async def _run_calls(self, calls: Sequence[Call], deadline: float) -> list[Outcome]:
        outputs = await asyncio.gather(*(self._run_call(call, deadline) for call in calls))
        return list(zip(calls, outputs, strict=True))

    async def _run_call(self, call: Call, deadline: float) -> PluginOutput:
        timeout = min(self._plugin_timeout_s, deadline - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                return check_output(await self._plugins.run(call))
        except Exception as error:  # a plugin's failure, of whatever kind, is not the turn's
            logger.warning("plugin %s gave no result: %s", call.plugin, type(error).__name__)
            return PluginOutput.no_result()
