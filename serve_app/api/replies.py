"""A session's turn as the events of a reply, for dialects that answer both in one form.

A turn that was stored before, under the same Idempotency-Key, is told anew.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from serve_app.chat.events import Delta, Event, Image, PluginCall, SearchItem, Thoughts
from serve_app.chat.turn import TurnDone, TurnEvent
from serve_app.prompt.exchange import shown_thoughts
from serve_app.sessions.session import StoredCall, Turn, has_images


async def as_reply(events: AsyncGenerator[TurnEvent]) -> AsyncGenerator[Event]:
    """The same events, with a Done in place of the TurnDone."""
    is_told = False
    async with aclosing(events):
        async for event in events:
            if not isinstance(event, TurnDone):
                is_told = True
                yield event
                continue
            for past in () if is_told else stored_events(event.turn):
                yield past
            yield event.done


def stored_events(turn: Turn) -> Iterator[Event]:
    """What led to a stored turn, as far as it is stored."""
    if thoughts := shown_thoughts(turn.thoughts):
        yield Thoughts(0, thoughts)
    for call in turn.calls:
        yield PluginCall(0, call.id, call.name, call.argument, call.state, _output(call), call.ms)
    yield Delta(0, turn.reply, (), ())


def _output(call: StoredCall) -> tuple[SearchItem, ...] | tuple[Image, ...] | str | None:
    if call.output is None or isinstance(call.output, str):
        return call.output
    if has_images(call):
        return tuple(Image(**image) for image in call.output)
    return tuple(SearchItem(**item) for item in call.output)
