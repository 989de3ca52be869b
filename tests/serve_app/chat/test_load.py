"""Hundreds of turns at once on one store: none fails, over a bounded number of connections."""

import asyncio

from serve_app.chat.turn import TurnLimits
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from tests.serve_app.store_server import StoreServer
from tests.support.chat import Chat
from tests.support.chat_fakes import FakeModel, FakePlugins

NUM_TURNS = 400


async def test_400_new_chats_at_once(own_server: StoreServer) -> None:
    settings = StoreSettings()
    store = RedisSessionStore(own_server.url, settings)
    # All run at once while their leases are renewed.
    running = asyncio.Semaphore(0)
    go_on = asyncio.Event()

    async def meet(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 1:
            running.release()
            await go_on.wait()

    limits = TurnLimits(4096, lease_renewal_s=0.05)
    chat = Chat(store, FakeModel(wait=meet), FakePlugins(), limits)

    async def turn(number: int) -> list[str]:
        return [turn.user for turn in (await chat.say(f"{number}")).turns]

    turns = [asyncio.create_task(turn(number)) for number in range(NUM_TURNS)]
    for _ in range(NUM_TURNS):
        await running.acquire()
    await asyncio.sleep(0.5)
    most = settings.num_connections + settings.num_commit_connections + 3
    assert own_server.num_clients() <= most
    go_on.set()
    assert await asyncio.gather(*turns) == [[f"{number}"] for number in range(NUM_TURNS)]
    assert own_server.num_clients() <= most
    await store.close()
