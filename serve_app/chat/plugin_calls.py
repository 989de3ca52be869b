"""Runs the plugin calls of a choice at once, and reports them as events.

A call that fails, hangs or answers nonsense has no result; it never fails the turn. What the
answers look like to the model is decided elsewhere.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from plugins_svc.protocol.calls import Call
from plugins_svc.protocol.results import items_per_search
from plugins_svc.sdk.output import PluginOutput, check_output
from serve_app.chat.events import PluginCall, SearchItem
from serve_app.chat.protocols import PluginClient
from serve_app.chat.request import Choice

logger = logging.getLogger(__name__)

Outcome = tuple[Call, PluginOutput]


class PluginCalls:
    """The calls of one choice. `outcomes` is complete when `run` has ended."""

    def __init__(
        self, client: PluginClient, timeout_s: float, choice: Choice, calls: Sequence[Call]
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._choice = choice
        self._calls = calls
        self._num_items = 0
        self.outcomes: list[Outcome] = []

    async def run(self) -> AsyncGenerator[PluginCall]:
        """All calls as started, then each as done or failed, in their order.

        The order fixes the numbers of the search items. Closing it cancels what still runs.
        """
        started = [self._started(index, call) for index, call in enumerate(self._calls)]
        tasks = [asyncio.create_task(self._timed_answer(call)) for call in self._calls]
        try:
            for event in started:
                yield event
            for event, call, task in zip(started, self._calls, tasks, strict=True):
                output, ms = await task
                self.outcomes.append((call, output))
                yield self._ended(event, output, ms)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _timed_answer(self, call: Call) -> tuple[PluginOutput, int]:
        start = time.monotonic()
        output = await self._answer(call)
        return output, round((time.monotonic() - start) * 1000)

    async def _answer(self, call: Call) -> PluginOutput:
        try:
            async with asyncio.timeout(min(self._timeout_s, self._choice.time_left_s)):
                return check_output(await self._client.run(call))
        except Exception as error:  # no failure of a plugin may fail the turn
            logger.warning("plugin %s gave no result: %s", call.plugin, type(error).__name__)
            return PluginOutput.no_result()

    def _started(self, index: int, call: Call) -> PluginCall:
        choice = self._choice.index
        call_id = f"{self._choice.request.request_id}-{choice}-{index}"
        return PluginCall(choice, call_id, call.name, call.argument, "started")

    def _ended(self, event: PluginCall, output: PluginOutput, ms: int) -> PluginCall:
        shown = self._numbered(output) or "\n".join(output.lines)
        if not (output.ok and shown):
            return replace(event, state="failed", ms=ms)
        return replace(event, state="done", output=shown, ms=ms)

    def _numbered(self, output: PluginOutput) -> tuple[SearchItem, ...]:
        """The items that the Results may show, numbered over all searches of the choice."""
        num_searches = sum(call.name == "Search" for call in self._calls)
        items = output.items[: items_per_search(num_searches)] if output.ok else ()
        first = self._num_items + 1
        self._num_items += len(items)
        return tuple(
            SearchItem(n, item.title, item.url, item.snippet) for n, item in enumerate(items, first)
        )
