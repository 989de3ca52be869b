"""Role markers that the model writes end what it tells."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.dialogue import MARKERS, find_role_marker
from serve_app.chat.events import Delta, Thoughts
from serve_app.chat.turn import TurnDone
from serve_app.sessions.redis import RedisSessionStore
from tests.support.chat import Chat
from tests.support.chat_fakes import FakeModel, FakePlugins

PIECES = st.sampled_from(
    [*MARKERS.values(), "<|", "<", "|>", "MOSS", " ", "\n", "好", "<eot>", "ok"]
)


@given(st.lists(PIECES, max_size=8).map("".join), st.lists(PIECES, max_size=8).map("".join))
@settings(max_examples=60, deadline=None)
def test_no_role_marker_reaches_the_client_or_the_store(
    store_url: str, thoughts: str, reply: str
) -> None:
    """Whatever the model writes; and what the client read is what is stored."""

    async def turn() -> None:
        store = RedisSessionStore(store_url)
        model = FakeModel(
            think=lambda _: f" {thoughts}<eot>\n<|Commands|>: None<eoc>",
            reply=lambda _: f" {reply}<eom>",
        )
        *events, done = await Chat(store, model, FakePlugins()).events()
        assert isinstance(done, TurnDone)
        session = await store.load(done.session.uid, "ann")
        await store.close()
        assert session is not None
        (stored,) = session.turns
        texts = [event.text for event in events if isinstance(event, Thoughts | Delta)]
        assert "".join(texts) == stored.thoughts + stored.reply
        for text in (*texts, stored.thoughts, stored.commands, stored.results, stored.reply):
            assert find_role_marker(text) is None

    asyncio.run(turn())
