"""What comes before the reply of a model with plugins: its first pass, then its plugin calls.

Commands are read only from what the model wrote in the first pass, and once a turn. The result is
the prompt of the reply pass. It does not use sessions or the store.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from moss_tp.dialogue import neutralise_output
from moss_tp.errors import ContextLengthError
from plugins_svc.protocol.calls import parse_commands, render_commands
from plugins_svc.protocol.results import Outcome, format_results, num_items
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.pictures import PictureStore
from serve_app.chat.calling.tools import ToolCall, parse_tool_calls, render_tool_calls
from serve_app.chat.events import Done, PluginCall, Thoughts, Usage
from serve_app.chat.pass_params import thoughts_params
from serve_app.chat.passes import run_pass
from serve_app.chat.plugin_calls import PluginCalls
from serve_app.chat.protocols import ChatModel, PluginClient
from serve_app.chat.request import Choice
from serve_app.prompt.builder import PromptBuilder, Thinking, has_left_thinking
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.fit import MIN_REPLY_TOKENS

# Nobody is told thoughts before they end, so that fewer messages do.
THOUGHTS_INTERVAL_S = 0.3


@dataclass(frozen=True)
class ReplyPrompt:
    """The prompt of the reply pass, and the text and token counts of what preceded it.

    The reply may cite items 1 to `num_items`; None turns the check of citations off.
    `num_results_tokens` of `token_ids` are the injected Results. `num_passes` were run for it.
    """

    token_ids: list[int]
    thoughts: str = ""
    commands: str = ""
    results: str = ""
    num_items: int | None = None
    num_results_tokens: int = 0
    num_passes: int = 0
    num_thoughts_tokens: int = 0
    num_cached_tokens: int = 0


class ThinkingStage:
    """Runs the first pass on `model` and the calls on `plugins`, each as long as its spec says.

    Pictures go to `pictures`. Holds no state of any turn.
    """

    def __init__(
        self,
        model: ChatModel,
        plugins: PluginClient,
        prompts: PromptBuilder,
        pictures: PictureStore,
    ) -> None:
        self._model = model
        self._plugins = plugins
        self._prompts = prompts
        self._pictures = pictures

    async def run(
        self, choice: Choice
    ) -> AsyncGenerator[Thoughts | PluginCall | ReplyPrompt | Done]:
        """The thoughts, the events of the calls, then the ReplyPrompt: or a Done if the model calls
        tools of the client.

        Raises DeadlineExceededError, EngineDeadError, and ContextLengthError if no room is left
        for a reply.
        """
        resume = choice.request.resume
        generated_ids, num_cached_tokens = (
            await self._think(choice)
            if resume.thought_ids is None
            else ([*resume.thought_ids], resume.num_cached_thoughts)
        )
        thinking = self._prompts.read_thinking(generated_ids)
        if resume.thought_ids is None and generated_ids:  # else there are none to show
            yield Thoughts(choice.index, thinking.thoughts, tuple(generated_ids), num_cached_tokens)
        if tool_calls := _tool_calls(choice, thinking):
            yield _waiting(choice, thinking, tool_calls, len(generated_ids), num_cached_tokens)
            return
        commands = parse_commands(thinking.commands, choice.request.enabled)
        calls = PluginCalls(self._plugins, self._pictures, choice, commands)
        num_told = resume.num_call_events
        async with aclosing(calls.run()) as events:
            async for event in events:
                if num_told > 0:
                    num_told -= 1
                else:
                    yield event
        counts = len(generated_ids), num_cached_tokens
        yield self._fitting_prompt(choice, thinking, calls.outcomes, *counts)

    async def _think(self, choice: Choice) -> tuple[list[int], int]:
        """The ids that the first pass generates, and how many of its prompt were cached.

        There is no such pass if the request leaves no token for it.
        """
        prompt_ids = choice.prompt.token_ids
        max_tokens = choice.request.max_thoughts_tokens(len(prompt_ids))
        if max_tokens < 1:
            return [], 0
        stop_ids = (self._prompts.eoc_id, self._prompts.eom_id)
        params = thoughts_params(choice.request.params, max_tokens, stop_ids)
        ids: list[int] = []
        text = ""
        num_cached_tokens = 0
        thoughts = run_pass(
            self._model, choice, 1, prompt_ids, params, delta_interval_s=THOUGHTS_INTERVAL_S
        )
        async with aclosing(thoughts) as deltas:
            async for delta in deltas:
                ids.extend(delta.token_ids)
                num_cached_tokens = delta.num_cached_tokens
                text += delta.text
                if ">" in delta.text and has_left_thinking(text):
                    break  # leaving the pass aborts it
        return ids, num_cached_tokens

    def _fitting_prompt(
        self,
        choice: Choice,
        thinking: Thinking,
        outcomes: Sequence[Outcome],
        num_thoughts_tokens: int,
        num_cached_tokens: int,
    ) -> ReplyPrompt:
        """The reply's prompt with everything; without results, or thoughts, if that is too long."""
        no_results = [(call, PluginOutput.no_result()) for call, _ in outcomes]
        prompt_ids = choice.prompt.token_ids
        options = ((thinking, outcomes), (thinking, no_results), (self._prompts.no_thinking, ()))
        for base, shown in options:
            commands = render_commands([call for call, _ in shown])
            rewritten = self._prompts.with_commands(base, commands)
            results = format_results(shown, neutralise_output)
            ids = self._prompts.reply_prompt(prompt_ids, rewritten, results)
            if len(ids) + MIN_REPLY_TOKENS <= choice.request.max_length:
                return ReplyPrompt(
                    token_ids=ids,
                    thoughts=rewritten.thoughts,
                    commands=rewritten.commands,
                    results=results,
                    num_items=num_items(shown),
                    num_results_tokens=len(ids) - len(prompt_ids) - len(rewritten.token_ids),
                    num_passes=1 if num_thoughts_tokens else 0,
                    num_thoughts_tokens=num_thoughts_tokens,
                    num_cached_tokens=num_cached_tokens,
                )
        raise ContextLengthError("no room for a reply")


def _tool_calls(choice: Choice, thinking: Thinking) -> tuple[ToolCall, ...]:
    request = choice.request
    prefix = f"call_{request.request_id}{choice.index:02x}"
    return parse_tool_calls(thinking.commands, request.tools, prefix, request.max_tool_calls)


def _waiting(
    choice: Choice,
    thinking: Thinking,
    calls: tuple[ToolCall, ...],
    num_thoughts_tokens: int,
    num_cached_tokens: int,
) -> Done:
    """The end of a choice that waits for what the client's tools answer."""
    is_first = choice.index == 0
    usage = Usage(
        prompt_tokens=len(choice.prompt.token_ids) * is_first,
        cached_tokens=num_cached_tokens * is_first,
        completion_tokens=num_thoughts_tokens,
        reasoning_tokens=num_thoughts_tokens,
    )
    exchange = Exchange(choice.request.user, thinking.thoughts, render_tool_calls(calls), "", "")
    dropped, digest = choice.prompt.dropped_turns, choice.prompt.digest
    return Done(choice.index, "tool_calls", usage, dropped, exchange, digest, calls)
