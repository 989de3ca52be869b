"""A turn goes on only by the make-up that began it, which is stored when it starts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from redis.asyncio import Redis

from serve_app.http.drain import Drain
from serve_app.sessions.keys import session_keys
from tests.serve_app.live.ingresses import Ingress, Ingresses, stored, text_of
from tests.serve_app.live.test_fencing import REPLY, hanging_model, slow_model
from tests.support.chat_fakes import FakeModel
from tests.support.waiting import PATIENCE_S, POLL_S


@dataclass
class Version:
    """Says the same of its replicas at all times, or nothing the first `num_silent` times."""

    code: str
    num_silent: int = 0

    async def make_up(self) -> Mapping[str, Any]:
        self.num_silent -= 1
        return {} if self.num_silent >= 0 else {"code": self.code, "tp": 1}


def add(ingresses: Ingresses, code: str, model: FakeModel | None = None) -> Ingress:
    return ingresses.add(model or slow_model(0), make_up=Version(code))


async def test_a_turn_is_of_what_it_was_begun_by(ingresses: Ingresses) -> None:
    version = Version("old")
    ingress, uid = ingresses.add(hanging_model(5), make_up=version), await ingresses.session()
    started = await ingress.start(uid)
    await stored(started, 5)
    version.code = "new"  # what replicas say later
    last = await ingress.cancel(started, keep=True)
    assert last is not None and last.kind == "done"
    (turn,) = (await ingresses.load(uid)).tree
    assert turn.make_up["code"] == "old"


async def test_another_make_up_leaves_a_turn_to_its_own(ingresses: Ingresses) -> None:
    first, uid = add(ingresses, "old", hanging_model(5)), await ingresses.session()
    started = await first.start(uid)
    await stored(started, 5)
    await first.die()
    other = add(ingresses, "new")
    await asyncio.sleep(ingresses.settings.hold_s + 0.5)  # the other one has looked at it
    own = add(ingresses, "old")
    events = await own.read(started)
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")
    assert other.model.requests == [], "it wrote nothing"
    (turn,) = (await ingresses.load(uid)).tree
    assert turn.make_up["code"] == "old"


async def test_a_turn_of_no_make_up_that_is_left_fails(ingresses: Ingresses) -> None:
    ingresses.settings = replace(ingresses.settings, grace_s=0.5)
    first, uid = add(ingresses, "old", hanging_model(5)), await ingresses.session()
    started = await first.start(uid)
    await stored(started, 5)
    await first.die()
    other = add(ingresses, "new")
    *told, end = await other.read(started)
    assert end.kind == "error" and end.data["error"]["type"] == "OtherMakeUpError"
    assert REPLY.strip().startswith(text_of(told)) and other.model.requests == []
    assert (await ingresses.load(uid)).tree == ()
    await other.read(await other.start(uid))
    assert len((await ingresses.load(uid)).tree) == 1, "the session is free"


async def test_a_turn_waits_for_replicas_that_do_not_say_yet_what_they_are(
    ingresses: Ingresses,
) -> None:
    ingresses.settings = replace(ingresses.settings, grace_s=0)
    first, uid = add(ingresses, "old", hanging_model(5)), await ingresses.session()
    started = await first.start(uid)
    await stored(started, 5)
    await first.die()
    silent = Version("", num_silent=10**6)
    other = ingresses.add(slow_model(0), make_up=silent)
    (record,) = session_keys(uid, f"live:{started.id}")
    async with Redis.from_url(ingresses.url) as redis, asyncio.timeout(PATIENCE_S):
        while int(await redis.hget(record, "attempts") or 0) < 1:
            await asyncio.sleep(POLL_S)
    silent.code, silent.num_silent = "old", 0
    events = await other.read(started)
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")
    (turn,) = (await ingresses.load(uid)).tree
    assert turn.make_up["code"] == "old"


async def test_a_turn_that_is_stored_ends_whoever_says_so(
    ingresses: Ingresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, uid = add(ingresses, "old"), await ingresses.session()
    is_there = asyncio.Event()

    async def end(*args: Any) -> None:
        is_there.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(first.store, "end", end)
    started = await first.start(uid)
    await is_there.wait()
    await first.die()
    assert (await add(ingresses, "new").read(started))[-1].kind == "done"
    (turn,) = (await ingresses.load(uid)).tree
    assert turn.make_up["code"] == "old"


async def test_an_ingress_that_stops_waits_where_no_other_may_go_on(ingresses: Ingresses) -> None:
    """As in a rolling update to another version: its turns may end."""
    drain = Drain()
    model, version = slow_model(0.02), Version("old")
    only, other = ingresses.add(model, stop=drain, make_up=version), add(ingresses, "new")
    await other.is_known()
    started = await only.start(await ingresses.session())
    assert await drain.finish(10) == 0
    events = await other.read(started)
    assert text_of(events) == REPLY.strip().removesuffix("<eom>")
    assert other.model.requests == []
