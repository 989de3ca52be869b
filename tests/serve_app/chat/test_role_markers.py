"""A reply, and the thoughts before it, end before any role marker, wherever deltas cut it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.dialogue import MARKERS, find_role_marker
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from serve_app.chat.events import Delta, Done, PluginCall, Thoughts
from serve_app.chat.reply_text import ReplyText
from serve_app.chat.role_markers import RoleMarkerFilter
from tests.serve_app.chat.replies import PARAMS, a_request, events_of
from tests.support.chat import Chat
from tests.support.chat_fakes import FakeModel, FakePlugins

SPELLINGS = [
    *(spelling for marker in MARKERS.values() for spelling in (marker, marker[:-1])),
    *("<|Inner  Thoughts|>:", "<|Inner\nThoughts|>", "<| MOSS |>:", "<|\nHuman|> :", "<|MOSS  |>:"),
]
TEXTS = st.lists(
    st.sampled_from(
        [*"<|>:5 n\n你M", "Human", "MOSS", "<|1|>", "< |MOSS|>:", "<|", "Inner ", "<|moss|>"]
    )
).map("".join)
CITED = "<sup><|{}|></sup>"


@given(TEXTS, st.sampled_from(SPELLINGS), TEXTS, st.lists(st.integers(0, 60)))
def test_nothing_of_a_marker_and_all_before_it_is_shown(
    before: str, marker: str, after: str, places: list[int]
) -> None:
    text = before + marker + after
    end = find_role_marker(text)
    assert end is not None and end <= len(before)
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    markers = RoleMarkerFilter()
    shown = [markers.feed(text[start:stop]) for start, stop in pairwise(edges)]
    assert markers.has_ended
    assert "".join([*shown, markers.end()]) == text[:end]


@given(TEXTS, st.lists(st.integers(0, 60)))
def test_text_without_a_marker_is_shown_whole(text: str, places: list[int]) -> None:
    if find_role_marker(text) is not None:
        return
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    markers = RoleMarkerFilter()
    shown = [markers.feed(text[start:stop]) for start, stop in pairwise(edges)]
    assert "".join([*shown, markers.end()]) == text
    assert not markers.has_ended


def test_only_what_may_become_a_marker_is_held_back() -> None:
    assert [RoleMarkerFilter().feed(text) for text in ("a<", "a<|", "a<|Inner ", "a<|MOSS")] == [
        "a",
        "a",
        "a",
        "a",
    ]
    unheld = ("a<b", "a<|1", "a<|x", "< |", "<|MOSSx", "<|Inner|", "1 < 2 | 3")
    assert [RoleMarkerFilter().feed(text) for text in unheld] == list(unheld)


@given(TEXTS, st.sampled_from(SPELLINGS), st.lists(st.integers(0, 60), max_size=4))
def test_a_citation_that_is_dropped_leaves_no_marker(
    before: str, marker: str, places: list[int]
) -> None:
    """There is no item 7; what is left when its citation is dropped may be a marker."""
    written = before + marker[:4] + CITED.format(7) + marker[4:] + "after"
    edges = [0, *sorted(min(place, len(written)) for place in places), len(written)]
    text = ReplyText(0, num_items=1)
    pieces = []
    for start, stop in pairwise(edges):
        pieces.append(text.add(TokenDelta((1,), written[start:stop], None, 1, 0)).text)
        if text.has_ended:
            break
    end = text.end()
    told = "".join([*pieces, end.text if end else ""])
    assert find_role_marker(told) is None
    assert (text.text, text.finish_reason, end) == (told, "stop", None)


def spoken(marker: str) -> Callable[[str], str]:
    return lambda prompt: f" answer {marker} more<eom>"


@pytest.mark.parametrize("marker", SPELLINGS)
@pytest.mark.parametrize("is_plain", [False, True])
async def test_a_reply_ends_before_a_role_marker(
    model: FakeModel, plugins: FakePlugins, marker: str, is_plain: bool
) -> None:
    model.reply = spoken(marker)
    params = replace(PARAMS, n=3, stop=("zzz",), min_tokens=99)
    events = await events_of(model, a_request(params), None if is_plain else plugins)
    assert (model.num_running, model.num_aborted) == (0, 3), "the engine stops generating"
    for done in (event for event in events if isinstance(event, Done)):
        deltas = [e for e in events if isinstance(e, Delta) and e.choice == done.choice]
        assert "".join(delta.text for delta in deltas) == done.exchange.reply == "answer "
        assert done.finish_reason == "stop"
        num_told = sum(len(delta.token_ids) for delta in deltas)
        assert done.usage.completion_tokens - done.usage.reasoning_tokens == num_told


@dataclass
class Coalescing(FakeModel):
    """Gives out everything in one delta, as the way through Serve may."""

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncIterator[TokenDelta]:
        deltas = [delta async for delta in super().generate(request, session_id)]
        ids = tuple(token_id for delta in deltas for token_id in delta.token_ids)
        text = "".join(delta.text for delta in deltas)
        yield deltas[-1]._replace(token_ids=ids, text=text)


@pytest.mark.parametrize("model", [FakeModel(), Coalescing()])
@pytest.mark.parametrize("marker", SPELLINGS)
async def test_the_first_pass_ends_before_a_role_marker(model: FakeModel, marker: str) -> None:
    for written, thoughts in (
        (f' one\n{marker} two<eot>\n<|Commands|>: Calculate("1")<eoc>', "one"),
        (f' one<eot>\n{marker} x\n<|Commands|>: Calculate("1")<eoc>', "one"),
        (f' one<eot>\n<|Commands|>: Calculate("1"), Calculate("{marker}")<eoc>', "one"),
        (f"{marker}<eoc>", "None"),
    ):
        model.think = lambda prompt, written=written: written  # type: ignore[misc]
        events = await events_of(model, a_request(), FakePlugins())
        assert [e.text for e in events if isinstance(e, Thoughts)] == [thoughts]
        assert not [event for event in events if isinstance(event, PluginCall)]
        *_, done = events
        assert isinstance(done, Done)
        assert (done.exchange.thoughts, done.exchange.commands) == (thoughts, "None")


async def test_neither_the_client_nor_the_store_gets_a_marker(chat: Chat) -> None:
    chat.model.reply = spoken("<|Results|>:")
    session = await chat.say()
    session = await chat.say(uid=session.uid)
    assert [turn.reply for turn in session.turns] == ["answer ", "answer "]
    assert await chat.store.load(session.uid, "ann") == session
