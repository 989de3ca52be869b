"""The demo dialect encodes a turn's events byte for byte as the demo's JSON, and nothing else."""

import json
import re
from collections.abc import AsyncGenerator

import pytest

from serve_app.api.demo import encode_answer, encode_stream
from serve_app.chat.events import Delta, PluginCall, Thoughts, Usage
from serve_app.chat.turn import TurnDone, TurnEvent
from serve_app.sessions.session import Session, Turn

UID = "0" * 32
TIME = r'"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"'


def done(dropped_turns: int = 0) -> TurnDone:
    first = Turn("一", "t", "None", "\nNone\n", "r1", "k1")
    last = Turn("二", "t", "None", "\nNone\n", "ab", "k2", dropped_turns=dropped_turns)
    return TurnDone(Session(UID, "demo", (first, last)), Usage(7, 0, 5, 3))


class FakeTurn:
    """The events of a turn; records whether it was closed."""

    def __init__(self, *events: TurnEvent) -> None:
        self._events = events
        self.is_closed = False

    async def __call__(self) -> AsyncGenerator[TurnEvent]:
        try:
            for event in self._events:
                yield event
        finally:
            self.is_closed = True


EVENTS: tuple[TurnEvent, ...] = (
    Thoughts(0, "t"),
    PluginCall(0, "r-0-0", "Calculate", "1", "started"),
    PluginCall(0, "r-0-0", "Calculate", "1", "done", "1", 3),
    Delta(0, "", (9,), ()),
    Delta(0, "a", (10,), ()),
    Delta(0, "b", (11,), ()),
    Delta(0, "", (2,), ()),
)


@pytest.mark.parametrize(
    ("dropped_turns", "suffix"), [(0, ""), (3, ', "dropped_turns": 3')], ids=["all", "dropped"]
)
async def test_the_answer_byte_for_byte(dropped_turns: int, suffix: str) -> None:
    answer = json.dumps(await encode_answer(FakeTurn(*EVENTS, done(dropped_turns))()))
    expected = (
        r'{"response": "\n<|MOSS|>: ab",'
        r' "history": [["\u4e00", "\n<|MOSS|>: r1"], ["\u4e8c", "\n<|MOSS|>: ab"]],'
        f' "status": 200, "time": "NOW", "uid": "{UID}"{suffix}}}'
    )
    assert re.sub(TIME, '"NOW"', answer) == expected


async def test_a_stream_has_a_delta_per_piece_of_text_then_the_answer() -> None:
    turn = FakeTurn(*EVENTS, done())
    *deltas, answer = [body async for body in encode_stream(turn())]
    assert deltas == [{"delta": "a"}, {"delta": "b"}]
    assert list(answer) == ["response", "history", "status", "time", "uid"]
    assert turn.is_closed


async def test_closing_the_stream_closes_the_turn() -> None:
    turn = FakeTurn(*EVENTS)
    bodies = encode_stream(turn())
    assert await anext(bodies) == {"delta": "a"}
    await bodies.aclose()
    assert turn.is_closed
