"""A call with effects is sent once, however often its turn is asked for with the same key."""

from contextlib import aclosing

import pytest

from serve_app.chat.events import Delta, PluginCall
from serve_app.sessions.session import new_token
from tests.support.chat import Chat
from tests.support.chat_fakes import think_of
from tests.support.waiting import until

ENABLED = frozenset({"text_to_image", "calculator"})


def sent(chat: Chat) -> tuple[int, int]:
    names = [call.name for call in chat.plugins.calls]
    return names.count("Text2Image"), names.count("Calculate")


@pytest.fixture
def key() -> str:
    return new_token()


async def test_a_turn_that_broke_off_has_its_answers(chat: Chat, key: str) -> None:
    chat.model.think = think_of('Text2Image("a cat"), Calculate("1+1")')
    async with aclosing(chat.ask(idempotency_key=key, enabled=ENABLED)) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    session = await chat.say(idempotency_key=key, enabled=ENABLED)
    assert sent(chat) == (1, 1)
    assert {call.output for call in session.turns[-1].calls} == {"late"}


async def test_a_call_without_an_answer_is_sent_again_only_if_it_is_pure(
    chat: Chat, key: str
) -> None:
    chat.model.think = think_of('Calculate("1+1"), Text2Image("a cat"), Calculate("2+2")')
    chat.plugins.answers = {"a cat": 60.0, "2+2": 60.0}
    async with aclosing(chat.ask(idempotency_key=key, enabled=ENABLED)) as events:
        async for event in events:
            if isinstance(event, PluginCall) and event.state == "done":
                await until(lambda: sent(chat) == (1, 2))
                break
    chat.plugins.answers = {}
    session = await chat.say(idempotency_key=key, enabled=ENABLED)
    assert sent(chat) == (1, 3), "the first sum was known"
    states = [(call.name, call.state) for call in session.turns[-1].calls]
    assert ("Text2Image", "failed") in states, "the outcome is unknown"


async def test_another_key_is_another_call(chat: Chat) -> None:
    chat.model.think = think_of('Text2Image("a cat")')
    session = await chat.say(idempotency_key="the-first-key-of-a-chat", enabled=ENABLED)
    await chat.say(uid=session.uid, idempotency_key="another", enabled=ENABLED)
    assert len(chat.plugins.calls) == 2
