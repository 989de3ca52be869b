"""A chat that is deleted while its turn is told: nobody reads on, wherever it is told."""

import asyncio

import pytest

from serve_app.errors import SessionNotFoundError
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from tests.serve_app.live.ingresses import OWNER, Ingresses
from tests.support.chat_fakes import FakeModel


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
