"""A live turn and its readers, who come at the same time, or just before it is taken up."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from serve_app.live.event import LiveEvent
from serve_app.live.service import Started
from tests.serve_app.live.ingresses import OWNER, Ingress, Ingresses, text_of
from tests.support.chat_fakes import FakeModel

WAIT_S = 4.0


def model_that_waits(go_on: asyncio.Event) -> FakeModel:
    async def wait(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            await go_on.wait()

    return FakeModel(wait=wait)


async def found(ingress: Ingress, started: Started) -> AsyncGenerator[LiveEvent]:
    events = await ingress.live.follow(started.uid, OWNER, started.id)
    assert events is not None
    return events


async def read(events: AsyncGenerator[LiveEvent]) -> list[str]:
    async with asyncio.timeout(WAIT_S), aclosing(events):
        return [event.kind async for event in events]


async def test_readers_who_come_at_once_share_what_is_told(ingresses: Ingresses) -> None:
    go_on = asyncio.Event()
    first, second = ingresses.add(model_that_waits(go_on)), ingresses.add()
    started = await first.start(await ingresses.session())
    await asyncio.sleep(0.2)
    readers = await asyncio.gather(found(second, started), found(second, started))
    reading = asyncio.gather(*map(read, readers))
    await asyncio.sleep(0.2)
    go_on.set()
    assert [kinds[-1] for kinds in await reading] == ["done", "done"]


async def test_who_came_before_a_take_up_reads_on(ingresses: Ingresses) -> None:
    first, second = ingresses.add(model_that_waits(asyncio.Event())), ingresses.add()
    started = await first.start(await ingresses.session())
    await asyncio.sleep(0.2)
    before, late = await found(second, started), await found(second, started)
    reading = asyncio.create_task(read(before))
    await first.die()
    assert (await reading)[-1] == "done"
    assert (await read(late))[-1] == "done"


async def test_who_read_before_a_take_up_of_another_tail_reads_on(ingresses: Ingresses) -> None:
    first, go_on = ingresses.add(model_that_waits(asyncio.Event())), asyncio.Event()
    second = ingresses.add(model_that_waits(go_on))
    started = await first.start(await ingresses.session())
    await asyncio.sleep(0.2)
    early = await found(second, started)
    await first.die()
    while not second.model.requests:  # it has taken the turn up
        await asyncio.sleep(0.01)
    reading = asyncio.create_task(read(early))
    await asyncio.sleep(0.1)
    go_on.set()
    assert (await reading)[-1] == "done"


async def test_a_turn_is_told_and_stored(ingresses: Ingresses) -> None:
    ingress, uid = ingresses.add(), await ingresses.session()
    started = await ingress.start(uid)
    events = await ingress.read(started)
    assert [event.number for event in events] == [*range(len(events))]
    kinds = [event.kind for event in events]
    assert kinds[:2] == ["turn", "thoughts"] and kinds[-1] == "done"
    own = {"id": started.id, "uid": uid, "parent": None, "user": "你好"}
    assert events[0].data == own
    assert text_of(events) == "turn 1"
    (turn,) = (await ingresses.load(uid)).turns
    assert (turn.id, turn.reply, turn.parent) == (started.id, "turn 1", "")
    assert events[-1].data["turn"]["reply"] == "turn 1"
    assert events[-1].data["usage"] == turn.usage
    took_ms = events[-1].data["turn"]["duration_ms"]
    assert 0 < took_ms < 60_000 and took_ms == turn.duration_ms


async def test_another_ingress_follows(ingresses: Ingresses) -> None:
    first, second, uid = ingresses.add(), ingresses.add(), await ingresses.session()
    started = await first.start(uid)
    here, there = await asyncio.gather(first.read(started), second.read(started))
    assert here == there
    assert await second.read(started, after=0) == there[1:]
