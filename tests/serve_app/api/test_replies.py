"""A session's turn as the events of a reply: as they came, or as they were stored."""

from collections.abc import AsyncGenerator

from serve_app.api.replies import as_reply
from serve_app.chat.events import Delta, Done, Event, PluginCall, SearchItem, Thoughts, Usage
from serve_app.chat.turn import TurnDone, TurnEvent
from serve_app.sessions.session import Session, StoredCall, Turn

CALLS = (
    StoredCall("c-0", "Calculate", "1+1", "done", "2", 3),
    StoredCall("c-1", "Search", "a", "done", [{"n": 1, "title": "T", "url": "", "snippet": "s"}]),
    StoredCall("c-2", "Solve", "x", "failed"),
)
TURN = Turn("hi", "t", "None", "", "hello", "k", finish_reason="cancelled", calls=CALLS)
DONE = TurnDone(Session("0" * 32, "ann", (TURN,)), Usage(1, 2, 3, 4))


async def told(*events: TurnEvent) -> list[Event]:
    async def turn() -> AsyncGenerator[TurnEvent]:
        for event in events:
            yield event

    return [event async for event in as_reply(turn())]


async def test_a_running_turn_is_told_as_it_is() -> None:
    events = (Thoughts(0, "t"), Delta(0, "hello", (5,), ()))
    *same, done = await told(*events, DONE)
    assert tuple(same) == events
    assert isinstance(done, Done) and (done.usage, done.exchange) == (DONE.usage, TURN)
    assert done.finish_reason == "cancelled"


async def test_a_stored_turn_is_told_anew() -> None:
    *events, done = await told(DONE)
    assert events == [
        Thoughts(0, "t"),
        PluginCall(0, "c-0", "Calculate", "1+1", "done", "2", 3),
        PluginCall(0, "c-1", "Search", "a", "done", (SearchItem(1, "T", "", "s"),)),
        PluginCall(0, "c-2", "Solve", "x", "failed"),
        Delta(0, "hello", (), ()),
    ]
    assert done == DONE.done
