"""One teller at a time: holders that were frozen, tries that are used up, stores that are away."""

import asyncio
from typing import Any

import pytest

from moss_tp.errors import EngineDeadError
from serve_app.errors import LeaseLostError
from serve_app.live.event import Telling
from serve_app.live.redis import LiveSettings, RedisLiveStore
from serve_app.live.store import Ask, TakenUp
from serve_app.sessions.session import Turn, new_token
from tests.serve_app.live.halting import FreezingStore
from tests.serve_app.live.ingresses import OWNER, Ingresses, begun, stored, text_of
from tests.serve_app.sessions.turns import a_turn
from tests.serve_app.store_server import StoreServer
from tests.support.chat_fakes import FakeModel
from tests.support.waiting import until

REPLY = " a reply of some length, told in pieces<eom>"


def slow_model(pause_s: float = 0.01) -> FakeModel:
    async def wait(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(pause_s)

    return FakeModel(reply=lambda prompt: REPLY, wait=wait)


def hanging_model(at_token: int) -> FakeModel:
    """Its reply never ends."""

    async def wait(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == at_token:
            await asyncio.Event().wait()

    return FakeModel(reply=lambda prompt: REPLY, wait=wait)


async def test_a_holder_that_was_frozen_tells_nothing_more(ingresses: Ingresses) -> None:
    store = FreezingStore(ingresses.url, ingresses.settings)
    first, second = ingresses.add(hanging_model(9), store=store), ingresses.add(slow_model())
    uid = await ingresses.session()
    started = await first.start(uid)
    reading = asyncio.create_task(first.read(started))
    await stored(started, 9)
    store.freeze()
    events = await second.read(started)
    store.thaw()
    assert await reading == events, "its readers follow whoever tells now"
    assert [event.number for event in events] == [*range(len(events))]
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")
    await until(lambda: first.model.num_running == 0)
    assert len((await ingresses.load(uid)).tree) == 1
    assert await second.read(started) == events, "nothing was added"


async def test_a_turn_that_kills_its_tellers_is_given_up(ingresses: Ingresses) -> None:
    uid = await ingresses.session()
    started = None
    for _ in range(4):  # the first teller, and three that take it up
        ingress = ingresses.add()

        async def hang(is_reply: bool, num_tokens: int) -> None:
            await asyncio.Event().wait()

        ingress.model.wait = hang
        started = started or await ingress.start(uid)
        await begun(ingress)
        await ingress.die()
    last = ingresses.add()
    assert started is not None
    *_, end = await last.read(started)
    assert end.kind == "error" and end.data["error"]["type"] == "EngineDeadError"
    assert last.model.requests == []
    assert (await ingresses.load(uid)).tree == ()
    await last.read(await last.start(uid))
    assert len((await ingresses.load(uid)).tree) == 1, "the session is free"


async def test_a_turn_survives_its_replica(ingresses: Ingresses) -> None:
    """It goes on after what was told, a second later."""
    ingress, uid = ingresses.add(slow_model(0)), await ingresses.session()
    has_died = False

    async def die_once(is_reply: bool, num_tokens: int) -> None:
        nonlocal has_died
        if is_reply and num_tokens == 10 and not has_died:
            has_died = True
            raise EngineDeadError("the group has lost a rank")

    ingress.model.wait = die_once
    started = await ingress.start(uid)
    events = await ingress.read(started)
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")
    assert [len(request.output_ids) for request in ingress.model.requests] == [0, 0, 10]
    ids = [request.request_id for request in ingress.model.requests]
    assert len(set(ids)) == 3, "an engine refuses an id that is running"


async def test_a_new_turn_waits_for_the_old_one(ingresses: Ingresses) -> None:
    first, uid = ingresses.add(slow_model()), await ingresses.session()
    started = await first.start(uid)
    await first.die()
    second = ingresses.add()
    with pytest.raises(Exception, match="another turn of this session is running"):
        await second.start(uid)
    await second.read(started)
    again = await second.start(uid)
    await second.read(again)
    first_turn, second_turn = (await ingresses.load(uid)).turns
    assert (first_turn.id, second_turn.parent) == (started.id, started.id)


async def test_a_turn_whose_client_and_ingress_are_gone_still_ends(ingresses: Ingresses) -> None:
    first, uid = ingresses.add(slow_model()), await ingresses.session()
    await first.start(uid)
    await first.die()
    ingresses.add()
    while not (await ingresses.load(uid)).tree:
        await asyncio.sleep(0.05)


async def test_a_store_that_is_away_for_a_moment_costs_nothing(own_server: StoreServer) -> None:
    ingresses = Ingresses(own_server.url, LiveSettings(hold_s=0.6, answer_timeout_s=0.5))
    first, second = ingresses.add(slow_model(0.03)), ingresses.add(slow_model(0.03))
    uid = await ingresses.session()
    started = await first.start(uid)
    reading = asyncio.gather(first.read(started), second.read(started))
    await stored(started, 1)
    own_server.kill()
    await asyncio.sleep(0.5)
    own_server.start()
    here, there = await reading
    assert here == there and text_of(here) == REPLY.strip().removesuffix("<eom>")
    assert len((await ingresses.load(uid)).tree) == 1
    await ingresses.aclose()


async def test_many_readers_read_the_same(ingresses: Ingresses) -> None:
    first, second, uid = ingresses.add(slow_model()), ingresses.add(), await ingresses.session()
    started = await first.start(uid)
    read = await asyncio.gather(
        *(second.read(started, after=number) for number in (-1, 0, 1) for _ in range(8))
    )
    whole = read[0]
    for number, events in enumerate(read):
        assert events == whole[number // 8 :]


async def test_a_commit_that_comes_after_the_end_is_refused(ingresses: Ingresses) -> None:
    """A holder's commit hangs; meanwhile a client cancels, and whoever took the turn up ends it."""
    first, uid = ingresses.add(), await ingresses.session()
    commit, is_there, may_commit = first.sessions.commit, asyncio.Event(), asyncio.Event()

    async def hang(*args: Any) -> Turn:
        is_there.set()
        await may_commit.wait()
        return await commit(*args)

    first.sessions.commit = hang  # type: ignore[method-assign, assignment]
    started = await first.start(uid, idempotency_key="key")
    await is_there.wait()
    (pen,) = first.live._writer.pens
    await first.live._patrol.stop()  # the hold is not renewed
    taker = RedisLiveStore(ingresses.url, ingresses.settings)
    ask = Ask(uid, OWNER, started.id)
    assert await taker.cancel(ask, "drop")
    end = Telling("error", {})
    while (taken := await taker.take_up(uid, started.id, new_token(), end)) is None:
        await asyncio.sleep(0.05)
    assert isinstance(taken, TakenUp)
    await taker.end(taken.hold, len(taken.events), end)
    may_commit.set()
    while first.live._crew._tellers:
        await asyncio.sleep(0.01)
    assert (await ingresses.load(uid)).tree == ()
    with pytest.raises(LeaseLostError):
        await commit(taken.hold.lease, pen.hold.turn.num_turns, a_turn("key"))
    told = await taker.read(ask)
    assert told is not None and told[-1].kind == "error"
    await taker.close()


async def test_a_renewal_that_comes_too_late_hides_no_turn(ingresses: Ingresses) -> None:
    """It was on its way while the turn was handed over: whoever looks next finds the turn."""
    first, uid = ingresses.add(hanging_model(3)), await ingresses.session()
    started = await first.start(uid)
    await stored(started, 3)
    (pen,) = first.live._writer.pens
    await first.die()
    store = RedisLiveStore(ingresses.url, ingresses.settings)
    await store.hand_over(pen.hold, 0, is_failure=False)
    await store.patrol("m:gone", [pen.hold], is_leaving=True)
    found = await store.patrol("m:other", [], is_leaving=False)
    assert (uid, started.id) in found.orphans
    await store.close()
