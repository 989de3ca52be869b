"""The pens of one turn, the old one and the new one, at the same ingress."""

import asyncio

from serve_app.live.event import Telling
from serve_app.live.follower import Follower
from serve_app.live.store import Ask
from serve_app.live.tail import Tail
from serve_app.live.writer import EventWriter
from serve_app.sessions.session import new_token
from tests.serve_app.live.ingresses import OWNER, Ingresses
from tests.support.chat_fakes import FakeModel


async def test_an_old_pen_does_not_take_the_new_ones_place(ingresses: Ingresses) -> None:
    """It closes after this ingress has taken the turn up again."""

    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.Event().wait()

    ingress, uid = ingresses.add(FakeModel(wait=hang)), await ingresses.session()
    started = await ingress.start(uid)
    assert started.teller is not None
    hold = started.teller.pen.hold
    await ingress.die()
    await asyncio.sleep(ingresses.settings.hold_s + 0.1)
    store, ask = ingress.store, Ask(uid, OWNER, started.id)
    writer = EventWriter(store)
    follower = Follower(store, writer.pens)
    tail = Tail(uid, OWNER, started.id, await store.read(ask) or ())
    old = writer.open(hold, tail, lambda standing: None)
    old.lose()
    assert not tail.is_told_here
    taken = await store.take_up(uid, started.id, new_token())
    assert taken is not None
    new = writer.open(taken.hold, tail, lambda standing: None)
    follower.track(tail)
    writer.close(old)
    follower.forget(tail)
    assert tail.is_told_here and follower.shared(uid, started.id) is tail
    for number in range(100):
        new.put(Telling("delta", {"text": f"{number} "}, (number,)))
        await asyncio.sleep(0.002)
    await new.flush()
    assert tuple(tail.events) == await store.read(ask)
    writer.close(new)
    assert not tail.is_told_here
    await writer.stop()
    await follower.stop()
