"""Lets out what a choice of a reply tells, as the moderation hook passes it.

A refused piece of the reply ends it: what was told stands, and nothing of the rest is told or
stored. If thoughts, calls or what plugins answered are refused, there is no reply at all.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from serve_app.chat.events import Delta, Done, Event, PluginCall, SearchItem, Thoughts, Usage
from serve_app.chat.request import Choice, ReplyRequest
from serve_app.moderation.held_text import HeldText
from serve_app.moderation.hook import Moderation
from serve_app.prompt.exchange import Exchange


class ModeratedReply:
    """What of one choice's events may be told. `has_ended` is set when nothing more may follow."""

    def __init__(self, moderation: Moderation, choice: Choice) -> None:
        self._moderation = moderation
        self._choice = choice
        self._held: HeldText[Delta] = HeldText(choice.request.resume.num_told_chars)
        self._num_thoughts_tokens = 0
        self.has_ended = False

    async def pass_on(self, event: Event) -> list[Event]:
        """The events that may be told now that `event` has come."""
        if isinstance(event, Done):
            return await self._last(event)
        if isinstance(event, Delta):
            return await self._piece(event)
        if isinstance(event, Thoughts):
            self._num_thoughts_tokens = len(event.token_ids)
        if await self._refuses(_text(event)):
            self.has_ended = True
            return [self._end_before_reply()]
        return [event]

    async def _piece(self, delta: Delta) -> list[Event]:
        """The reply goes on for a moment after a refusal, and nobody is told what comes."""
        if self._choice.refused.is_set():
            return []
        self._held.add(delta)
        told, is_refused = await self._held.ask_due(self._refuses)
        if is_refused:
            self._choice.refused.set()
        return [*told]

    async def _last(self, done: Done) -> list[Event]:
        self.has_ended = True
        calls = done.exchange.commands if done.tool_calls else ""
        is_refused = self._choice.refused.is_set()
        if not is_refused and not await self._refuses(f"{calls}{self._held.question}"):
            return [*self._held.release(), done]
        exchange = replace(done.exchange, reply=done.exchange.reply[: self._held.num_approved])
        if calls:
            exchange = replace(exchange, commands="")
        end = replace(done, finish_reason="content_filter", exchange=exchange, tool_calls=())
        rest = self._held.cut()
        return [Delta(done.choice, rest, (), ()), end] if rest else [end]

    async def _refuses(self, text: str) -> bool:
        return bool(await self._moderation.reason(text, "out", self._choice.time_left_s))

    def _end_before_reply(self) -> Done:
        """Nothing that the model wrote is kept."""
        prompt = self._choice.prompt
        usage = Usage(
            prompt_tokens=len(prompt.token_ids) * (self._choice.index == 0),
            completion_tokens=self._num_thoughts_tokens,
            reasoning_tokens=self._num_thoughts_tokens,
        )
        exchange = Exchange(self._choice.request.user, "", "", "", "")
        return Done(
            self._choice.index,
            "content_filter",
            usage,
            prompt.dropped_turns,
            exchange,
            prompt_digest=prompt.digest,
        )


async def moderated(
    moderation: Moderation, choice: Choice, events: AsyncGenerator[Event]
) -> AsyncGenerator[Event]:
    """The `events` of `choice` that may be told, with a Done at the end. Closing it closes them."""
    reply = ModeratedReply(moderation, choice)
    async with aclosing(events):
        async for event in events:
            for told in await reply.pass_on(event):
                yield told
            if reply.has_ended:
                return


async def check_request(moderation: Moderation, request: ReplyRequest) -> None:
    """Raises ContentRefusedError for text that came with the request. The history of a session came
    with earlier ones."""
    texts = [request.system, request.user]
    if request.so_far is not None:
        texts.append(request.so_far.results)
    if not request.session_id:
        texts += [text for each in request.history for text in (each.user, each.reply)]
    within_s = request.deadline - time.monotonic()
    await moderation.check_input("\n".join(filter(None, texts)), within_s)


def _text(event: Thoughts | PluginCall) -> str:
    if isinstance(event, Thoughts):
        return event.text
    if event.output is None or isinstance(event.output, str):
        return f"{event.argument}\n{event.output or ''}"
    items = [item for item in event.output if isinstance(item, SearchItem)]
    return "\n".join(f"{item.title}\n{item.url}\n{item.snippet}" for item in items)
