"""Runs the plugin calls of a choice concurrently, and reports them as events.

A call that fails, hangs or returns a malformed output has no result; it never fails the turn. How
the model sees the outputs is decided elsewhere.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from plugins_svc.protocol.calls import Call
from plugins_svc.protocol.results import Outcome, block_order, item_numbers
from plugins_svc.sdk.output import PluginOutput, check_output
from serve_app.chat.circuit_breaker import PluginPausedError
from serve_app.chat.events import PluginCall, SearchItem
from serve_app.chat.protocols import PluginClient
from serve_app.chat.request import Choice, TimedOutput

logger = logging.getLogger(__name__)

MAX_SHARE = 0.5  # of the time that is left: the reply needs some, too


class PluginCalls:
    """The calls of one choice. `outcomes` has one entry per call, complete when `run` has ended."""

    def __init__(
        self, client: PluginClient, timeout_s: float, choice: Choice, calls: Sequence[Call]
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._choice = choice
        self.outcomes: list[Outcome] = [(call, PluginOutput.no_result()) for call in calls]

    async def run(self) -> AsyncGenerator[PluginCall]:
        """All calls as started, then each as done or failed. Closing it cancels what still runs.

        They end in the order of the blocks in Results, which fixes the numbers of search items.
        """
        calls = [call for call, _ in self.outcomes]
        started = [self._started(index, call) for index, call in enumerate(calls)]
        tasks = [self._start(call) for call in calls]
        try:
            for event in started:
                yield event
            for index in block_order(calls):
                output, ms = await tasks[index]
                self.outcomes[index] = (calls[index], output)
                numbers = item_numbers(self.outcomes)[index]
                yield _ended(started[index], output, numbers, ms)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, call: Call) -> "asyncio.Task[TimedOutput]":
        """A task for `call`. Equal calls of a request share one, unless they have effects."""
        running = self._choice.answers.get(call)
        if running is None or call.spec.has_effects:
            running = asyncio.create_task(self._timed_answer(call))
            self._choice.answers[call] = running
        return running

    async def _timed_answer(self, call: Call) -> TimedOutput:
        start = time.monotonic()
        output = await self._answer(call)
        return output, round((time.monotonic() - start) * 1000)

    async def _answer(self, call: Call) -> PluginOutput:
        timeout_s = min(self._timeout_s, MAX_SHARE * self._choice.time_left_s)
        try:
            return check_output(await self._client.run(call, timeout_s))
        except PluginPausedError:  # logged when it was paused
            return PluginOutput.no_result()
        except Exception as error:  # no failure of a plugin may fail the turn
            logger.warning("plugin %s gave no result: %s", call.plugin, type(error).__name__)
            return PluginOutput.no_result()

    def _started(self, index: int, call: Call) -> PluginCall:
        choice = self._choice.index
        call_id = f"{self._choice.request.request_id}-{choice}-{index}"
        return PluginCall(choice, call_id, call.name, call.argument, "started")


def _ended(event: PluginCall, output: PluginOutput, numbers: range, ms: int) -> PluginCall:
    items = tuple(
        SearchItem(n, item.title, item.url, item.snippet)
        for n, item in zip(numbers, output.items, strict=False)  # not all items may be shown
    )
    shown = items or "\n".join(output.lines)
    if not (output.ok and shown):
        return replace(event, state="failed", ms=ms)
    return replace(event, state="done", output=shown, ms=ms)
