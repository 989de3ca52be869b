"""How long the store keeps what belongs to live turns, and what a delete takes along."""

import asyncio
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from serve_app.sessions.keys import session_keys
from tests.serve_app.live.ingresses import SETTINGS, Ingresses
from tests.support.chat_fakes import FakeModel, think_of

ENABLED = frozenset({"text_to_image"})


async def hang(is_reply: bool, num_tokens: int) -> None:
    await asyncio.Event().wait()


async def test_a_session_forgets_live_turns_that_are_over(store_url: str) -> None:
    ingresses = Ingresses(store_url, replace(SETTINGS, keep_s=0.1))
    ingress, uid = ingresses.add(FakeModel(wait=hang)), await ingresses.session()
    (extras,) = session_keys(uid, "extras")
    async with Redis.from_url(store_url) as redis:
        for _ in range(4):
            started = await ingress.start(uid)
            newest = {*session_keys(uid, f"live:{started.id}", f"live:{started.id}:events")}
            kept: Any = await redis.zrange(extras, 0, -1)
            assert {key.decode() for key in kept} == newest
            await ingress.cancel(started)
            await asyncio.sleep(0.15)
    await ingresses.aclose()


async def test_a_sent_call_is_remembered_as_long_as_its_session(ingresses: Ingresses) -> None:
    ingress = ingresses.add(FakeModel(think=think_of('Text2Image("a cat")')))
    uid = await ingresses.session()
    sent, meta = session_keys(uid, "sent", "meta")
    await ingress.read(await ingress.start(uid, enabled=ENABLED))
    async with Redis.from_url(ingresses.url) as redis:
        assert await redis.hlen(sent) == 1
        assert await redis.pttl(meta) - await redis.pttl(sent) < 60_000
