"""Runs the plugin calls of a choice concurrently, and reports them as events.

A call that fails, hangs or returns a malformed output has no result; it never fails the turn. One
with effects is sent at most once, and a result that was recorded stands. How the model sees the
outputs is decided elsewhere.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from plugins_svc.protocol.calls import Call
from plugins_svc.protocol.results import Outcome, block_order, item_numbers
from plugins_svc.sdk.output import PluginOutput, check_output
from plugins_svc.sdk.picture import StoredPicture
from serve_app.chat.calling.circuit_breaker import PluginPausedError
from serve_app.chat.calling.pictures import Album, PictureStore
from serve_app.chat.calling.shared_call import SharedCall
from serve_app.chat.events import Image, PluginCall, SearchItem
from serve_app.chat.protocols import PluginClient
from serve_app.chat.request import Choice
from serve_app.chat.resume import TimedOutput

logger = logging.getLogger(__name__)

MAX_SHARE = 0.5  # of the time that is left: the reply needs some, too
IMAGES = "/v1/images"  # where their owner gets pictures
MAX_CHARS = 64 * 1024  # of an output: far more than fits into any context


class PluginCalls:
    """The calls of one choice. `outcomes` has one entry per call, complete when `run` has ended."""

    def __init__(
        self,
        client: PluginClient,
        pictures: PictureStore,
        choice: Choice,
        calls: Sequence[Call],
    ) -> None:
        self._client = client
        self._album = Album(pictures, choice.request.owner, choice.request.session_id)
        self._choice = choice
        self.outcomes: list[Outcome] = [(call, PluginOutput.no_result()) for call in calls]

    async def run(self) -> AsyncGenerator[PluginCall]:
        """All calls as started, then each as done or failed. Closing it cancels what still runs.

        None is sent before all were told as started, since a reader may refuse one. They end in the
        order of the blocks in Results, which fixes the numbers of search items.
        """
        calls = [call for call, _ in self.outcomes]
        started = [self._started(index, call) for index, call in enumerate(calls)]
        for event in started:
            yield event
        running = [self._join(each.id, call) for each, call in zip(started, calls, strict=True)]
        try:
            for index in block_order(calls):
                output, ms = await running[index].result()
                self.outcomes[index] = (calls[index], output)
                numbers = item_numbers(self.outcomes)[index]
                yield _ended(started[index], output, numbers, ms)
        finally:
            await asyncio.gather(*[shared.leave() for shared in running])

    def _join(self, call_id: str, call: Call) -> SharedCall[TimedOutput]:
        """`call` as it runs. Equal calls of a request are one, unless they have effects."""
        shared = self._choice.answers.get(call)
        if shared is None or shared.is_given_up or call.spec.has_effects:
            shared = SharedCall(self._result(call_id, call))
            self._choice.answers[call] = shared
        return shared.join()

    async def _result(self, call_id: str, call: Call) -> TimedOutput:
        """The result that stands. What is not known to be recorded is not shown to anybody."""
        log, call_id = self._choice.request.call_log, f"{call_id}-{_digest(call)}"
        if (known := await log.find(call_id)) is not None:
            return known
        may_send = not call.spec.has_effects or await log.claim(call_id)
        if may_send and call.spec.has_effects:
            self._choice.has_sent.set()
        start = time.monotonic()
        output = await self._answer(call) if may_send else PluginOutput.no_result()
        return await log.record(call_id, (output, round((time.monotonic() - start) * 1000)))

    async def _answer(self, call: Call) -> PluginOutput:
        timeout_s = min(call.spec.timeout_s, MAX_SHARE * self._choice.time_left_s)
        try:
            output = _bounded(check_output(await self._client.run(call, timeout_s)))
            return await self._album.keep(output, self._choice.request.deadline)
        except PluginPausedError:  # logged when it was paused
            return PluginOutput.no_result()
        except Exception as error:  # no failure of a plugin may fail the turn
            logger.warning("plugin %s gave no result: %s", call.plugin, type(error).__name__)
            return PluginOutput.no_result()

    def _started(self, index: int, call: Call) -> PluginCall:
        choice = self._choice.index
        call_id = f"{self._choice.request.request_id}-{choice}-{index}"
        return PluginCall(choice, call_id, call.name, call.argument, "started")


def _digest(call: Call) -> str:
    """What is called: thoughts that are made anew may call something else in its place."""
    return hashlib.sha256(str(call).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _bounded(output: PluginOutput) -> PluginOutput:
    """`output`, if it is of a length that could fit into a prompt."""
    texts = [*output.lines, *(text for i in output.items for text in (i.title, i.url, i.snippet))]
    if sum(map(len, texts)) <= MAX_CHARS:
        return output
    logger.warning("a plugin's output was too long, so it counts as no result")
    return PluginOutput.no_result()


def _ended(event: PluginCall, output: PluginOutput, numbers: range, ms: int) -> PluginCall:
    items = tuple(
        SearchItem(n, item.title, item.url, item.snippet)
        for n, item in zip(numbers, output.items, strict=False)  # not all items may be shown
    )
    images = tuple(
        Image(each.id, f"{IMAGES}/{each.id}", each.media_type)
        for each in output.images
        if isinstance(each, StoredPicture)
    )
    shown = images or items or "\n".join(output.lines)
    if not (output.ok and shown):
        return replace(event, state="failed", ms=ms)
    return replace(event, state="done", output=shown, ms=ms)
