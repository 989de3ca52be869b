"""Turns that end once, however late the store takes their end, and whenever they are cancelled."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import pytest

from moss_tp.errors import DeadlineExceededError
from plugins_svc.sdk.output import PluginOutput
from serve_app.live.event import Telling
from serve_app.live.record import Hold
from serve_app.live.redis import LiveSettings, RedisLiveStore
from serve_app.live.service import Started
from serve_app.live.store import Ask
from serve_app.sessions.session import Turn
from serve_app.watch import Note, Watched
from tests.serve_app.live.ingresses import OWNER, SETTINGS, Ingress, Ingresses, text_of
from tests.support.chat_fakes import FakeModel, FakePlugins, think_of


class LateStore(RedisLiveStore):
    """Has no time for the first end, or says so after it has taken that."""

    def __init__(self, url: str, settings: LiveSettings, *, is_taken: bool) -> None:
        super().__init__(url, settings)
        self._is_taken = is_taken
        self._is_first = True

    async def end(self, hold: Hold, number: int, last: Telling, deadline: float = inf) -> None:
        is_late, self._is_first = self._is_first, False
        if self._is_taken or not is_late:
            await super().end(hold, number, last, deadline)
        if is_late:
            raise DeadlineExceededError("the store has too much to do")


@pytest.mark.parametrize("is_taken", [False, True])
async def test_a_stored_turn_ends_as_done(ingresses: Ingresses, is_taken: bool) -> None:
    store = LateStore(ingresses.url, SETTINGS, is_taken=is_taken)
    ingress, uid = ingresses.add(store=store), await ingresses.session()
    started = await ingress.start(uid)
    events = await ingress.read(started)
    assert [e.kind for e in events if e.telling.is_terminal] == ["done"]
    assert await store.read(Ask(uid, OWNER, started.id)) == tuple(events)
    assert [turn.id for turn in (await ingresses.load(uid)).tree] == [started.id]


async def test_a_commit_that_may_have_been_made_is_no_failure(
    ingresses: Ingresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingress, uid = ingresses.add(), await ingresses.session()
    commit = ingress.sessions.commit

    async def commit_late(*args: Any) -> Turn:
        await commit(*args)
        raise DeadlineExceededError("the store has too much to do")

    monkeypatch.setattr(ingress.sessions, "commit", commit_late)
    started = await ingress.start(uid)
    assert (await ingress.read(started))[-1].kind == "done"
    assert [turn.id for turn in (await ingresses.load(uid)).tree] == [started.id]


# Held back as the possible start of a citation: what comes after `A`.
REPLY = " A<sup><|7|></sup> and the rest of it<eom>"
HELD_AT = 9


async def never(is_reply: bool, num_tokens: int) -> None:
    await asyncio.Event().wait()


async def hang_at_citation(is_reply: bool, num_tokens: int) -> None:
    if is_reply and num_tokens == HELD_AT:
        await asyncio.Event().wait()


def add(ingresses: Ingresses, model: FakeModel) -> Ingress:
    model.think, model.reply = think_of('Calculate("1+1")'), lambda prompt: REPLY
    return ingresses.add(model, FakePlugins(answers={"1+1": PluginOutput(True, ("2",))}))


async def dead_before_commit(
    ingress: Ingress, uid: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Started, asyncio.Event]:
    """A turn of an ingress that will hang at its commit."""
    is_there = asyncio.Event()

    async def commit(*args: Any) -> None:
        is_there.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ingress.sessions, "commit", commit)
    return await ingress.start(uid), is_there


async def test_what_was_kept_ends_where_it_was_told(
    ingresses: Ingresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, uid = add(ingresses, FakeModel(wait=hang_at_citation)), await ingresses.session()
    started, is_there = await dead_before_commit(first, uid, monkeypatch)
    await asyncio.sleep(0.3)
    cancelling = asyncio.create_task(first.cancel(started, keep=True))
    await is_there.wait()
    await first.die()
    cancelling.cancel()
    second = add(ingresses, FakeModel())
    events = await second.read(started)
    (turn,) = (await ingresses.load(uid)).tree
    assert text_of(events) == turn.reply == "A<sup><|"
    assert turn.finish_reason == "cancelled"
    assert second.model.requests == []


async def test_what_was_dropped_is_not_told_on(
    ingresses: Ingresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, uid = add(ingresses, FakeModel()), await ingresses.session()
    started, is_there = await dead_before_commit(first, uid, monkeypatch)
    await is_there.wait()
    await first.die()
    assert await first.store.cancel(Ask(uid, OWNER, started.id), "drop")
    second = add(ingresses, FakeModel())
    end = (await second.read(started))[-1]
    assert end.kind == "error" and end.data["error"]["type"] == "TurnCancelledError"
    assert second.model.requests == [] and second.plugins.calls == []
    assert (await ingresses.load(uid)).tree == ()


async def test_a_turn_that_is_stored_is_not_cancelled_after_that(
    ingresses: Ingresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, uid = add(ingresses, FakeModel()), await ingresses.session()
    is_there = asyncio.Event()

    async def end(*args: Any) -> None:
        is_there.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(first.store, "end", end)
    started = await first.start(uid)
    await is_there.wait()
    await first.die()
    assert await first.store.cancel(Ask(uid, OWNER, started.id), "drop")
    assert (await add(ingresses, FakeModel()).read(started))[-1].kind == "done"
    assert [turn.id for turn in (await ingresses.load(uid)).tree] == [started.id]


@pytest.mark.parametrize("cancel", ["drop", "keep"])
async def test_a_cancel_before_the_teller_begins_counts(ingresses: Ingresses, cancel: Any) -> None:
    ingress, uid = ingresses.add(FakeModel(wait=never)), await ingresses.session()
    started = await ingress.start(uid)
    assert started.teller is not None
    started.teller.cancel(cancel)  # its task has not run yet
    async with asyncio.timeout(3):
        assert (await ingress.read(started))[-1].kind == "error"
    assert ingress.model.requests == []


async def test_a_hand_over_before_the_teller_begins_counts(ingresses: Ingresses) -> None:
    ingress, uid = ingresses.add(FakeModel(wait=never)), await ingresses.session()
    teller = (await ingress.start(uid)).teller
    assert teller is not None
    await teller.hand_over()
    async with asyncio.timeout(3):
        while not teller.pen.is_lost:
            await asyncio.sleep(0.01)


async def test_the_first_cancel_stands(ingresses: Ingresses) -> None:
    is_told = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 4:
            is_told.set()
            await asyncio.Event().wait()

    ingress, uid = ingresses.add(FakeModel(wait=hang)), await ingresses.session()
    started = await ingress.start(uid)
    await is_told.wait()
    ask = Ask(uid, OWNER, started.id)
    assert await ingress.store.cancel(ask, "keep") == "keep"
    last = await ingress.cancel(started, keep=False)
    assert last is not None and last.kind == "done"
    (turn,) = (await ingresses.load(uid)).turns
    assert turn.finish_reason == "cancelled"
    assert await ingress.store.cancel(ask, "drop") == "", "it runs no more"


async def test_a_turn_that_is_stored_is_done_though_its_reply_ends_badly(
    ingresses: Ingresses,
) -> None:
    @contextmanager
    def failing(watched: Watched) -> Iterator[Note]:
        yield lambda event: None
        raise ValueError("a bug")

    ingress, uid = ingresses.add(watch=failing), await ingresses.session()
    end = (await ingress.read(await ingress.start(uid)))[-1]
    assert end.kind == "done" and len((await ingresses.load(uid)).tree) == 1
