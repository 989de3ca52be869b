"""Turns that are cancelled before their take-up, and tellers that are before they begin."""

import asyncio
from typing import Any

import pytest

from plugins_svc.sdk.output import PluginOutput
from serve_app.live.service import Started
from serve_app.live.store import Ask
from tests.serve_app.live.ingresses import OWNER, Ingress, Ingresses, text_of
from tests.support.chat_fakes import FakeModel, FakePlugins, think_of

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
