"""The tail of a turn at one ingress: its pens, and the end of its chat."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from serve_app.errors import SessionNotFoundError
from serve_app.live.event import Telling
from serve_app.live.follower import STAND_EVERY_S, Follower
from serve_app.live.record import Hold
from serve_app.live.redis import RedisLiveStore
from serve_app.live.store import Ask, Polled, Standing, TakenUp
from serve_app.live.tail import Tail
from serve_app.live.writer import EventWriter
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import new_token
from tests.serve_app.live.ingresses import OWNER, Ingresses
from tests.support.chat_fakes import FakeModel
from tests.support.waiting import until


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
    taken = await store.take_up(uid, started.id, new_token(), Telling("error", {}))
    assert isinstance(taken, TakenUp)
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


class AskedStore(RedisLiveStore):
    """`asked` has for each poll the number of turns and of holds that it asks for."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: list[tuple[int, int]] = []

    async def poll(self, asks: Sequence[Ask], holds: Sequence[Hold]) -> Polled:
        self.asked.append((len(asks), len(holds)))
        return await super().poll(asks, holds)


async def test_a_silent_turn_learns_at_once_that_it_is_cancelled(ingresses: Ingresses) -> None:
    """And otherwise costs nothing, twenty times a second."""

    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.Event().wait()

    ingress = ingresses.add(FakeModel(wait=hang))
    elsewhere, here = [await ingress.start(await ingresses.session()) for _ in range(2)]
    assert here.teller is not None
    store, standings = AskedStore(ingresses.url), list[Standing]()
    writer = EventWriter(store)
    follower = Follower(store, writer.pens)
    for started in (elsewhere, here):
        tail = Tail(started.uid, OWNER, started.id, ())
        follower.track(tail)
    pen = writer.open(here.teller.pen.hold, tail, standings.append)
    began = time.monotonic()
    await until(lambda: len(store.asked) > 40)
    num_asked = [num_holds for _, num_holds in store.asked]
    assert sum(num_asked) <= (time.monotonic() - began) / STAND_EVERY_S + 3
    assert not pen.is_lost and not any(standing.cancel for standing in standings)
    other = RedisLiveStore(ingresses.url)
    await other.cancel(Ask(here.uid, OWNER, here.id), "keep")
    num_polls = len(store.asked)
    await until(lambda: any(standing.cancel == "keep" for standing in standings))
    assert len(store.asked) - num_polls <= 4, "one asks whether, the next one which"
    await follower.stop()
    await writer.stop()
    await store.close()
    await other.close()


async def test_who_asks_where_the_turn_is_told_gets_nothing(ingresses: Ingresses) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 4:
            await asyncio.Event().wait()

    ingress, uid = ingresses.add(FakeModel(wait=hang)), await ingresses.session()
    started = await ingress.start(uid)
    await asyncio.sleep(0.2)
    reading = asyncio.create_task(ingress.read(started))
    await asyncio.sleep(0.05)
    await ingress.live.close()  # nothing asks the store for it
    catalogue = RedisSessionCatalogue(ingresses.url)
    await catalogue.delete(uid, OWNER)
    await catalogue.close()
    with pytest.raises(SessionNotFoundError):
        await ingress.live.follow(uid, OWNER, started.id)
    async with asyncio.timeout(3):
        with pytest.raises(SessionNotFoundError):
            await reading
