"""A call with effects is sent once, however often its turn is asked for with the same key."""

from contextlib import aclosing

from serve_app.chat.events import Delta
from tests.support.chat import Chat
from tests.support.chat_fakes import think_of

ENABLED = frozenset({"text_to_image", "calculator"})


async def test_a_turn_that_broke_off_sends_its_call_once(chat: Chat) -> None:
    chat.model.think = think_of('Text2Image("a cat"), Calculate("1+1")')
    key = "a-key-that-starts-a-chat"
    async with aclosing(chat.ask(idempotency_key=key, enabled=ENABLED)) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    session = await chat.say(idempotency_key=key, enabled=ENABLED)
    sent = [call.name for call in chat.plugins.calls]
    assert (sent.count("Text2Image"), sent.count("Calculate")) == (1, 2)
    states = {call.name: call.state for call in session.turns[-1].calls}
    assert states == {"Text2Image": "failed", "Calculate": "done"}, "the outcome is unknown"


async def test_another_key_is_another_call(chat: Chat) -> None:
    chat.model.think = think_of('Text2Image("a cat")')
    session = await chat.say(idempotency_key="the-first-key-of-a-chat", enabled=ENABLED)
    await chat.say(uid=session.uid, idempotency_key="another", enabled=ENABLED)
    assert len(chat.plugins.calls) == 2
