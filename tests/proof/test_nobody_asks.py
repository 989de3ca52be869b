"""One of two ingresses dies in the middle of streamed turns, and no reader comes back.

Every turn still ends, to the bytes that it would have had. The long form is chaos.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.live.record import Hold
from serve_app.live.redis import RedisLiveStore
from serve_app.live.store import Round
from tests.proof.history.asking import Asker
from tests.proof.history.record import Act, Record
from tests.proof.long.streams import Left, all_ended
from tests.proof.test_forms import shown, stream_turns
from tests.proof.world import Parts, World, running_world

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NUM_TURNS = 8
NAME = "left-alone"


async def read_and_leave(asker: Asker, number: int, together: asyncio.Barrier) -> Left:
    """Reads the first turn of a session until all others have begun, and then never again."""
    uid = (await asker.ask("POST", "/v1/sessions", json={})).json()["id"]
    act = Act(asker.tenant, "turn", f"{NAME}-{number:012}", f"canary {number}", uid)
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(_: int, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "turn":
            told.set_result(data["id"])

    body = {"user": act.user, "stream": True}
    path = f"/v1/sessions/{uid}/turns"
    reading = asyncio.create_task(asker.follow("POST", path, act.key, on_event=note, json=body))
    turn = await told
    await together.wait()
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    return Left(act, turn)


async def left_alone(
    asker: Asker, store: str, kill: Callable[[], Awaitable[None]], within_s: float
) -> tuple[Sequence[Left], list[str]]:
    """Turns whose readers have gone before `kill`; the ids of those that have no end `within_s`
    after it. Nothing but the store is asked."""
    together = asyncio.Barrier(NUM_TURNS)
    left = await asyncio.gather(
        *(read_and_leave(asker, number, together) for number in range(NUM_TURNS))
    )
    await kill()
    return left, await all_ended(store, left, within_s)


async def run(world: World, asker: Asker, within_s: float) -> tuple[Sequence[Left], list[str]]:
    async def kill() -> None:
        await world.ingresses.pop(0).die()

    return await left_alone(asker, world.store_url, kill, within_s)


async def test_every_turn_ends_though_nobody_asks(store_url: str, effects: Path) -> None:
    world = World(Parts(), store_url, effects, pause_s=0.06)
    async with running_world(world), httpx.AsyncClient(trust_env=False) as http:
        asker = Asker(http, world.site.url, "ann", "ann", Record())
        left, endless = await run(world, asker, 60)
        assert endless == []
        for act in (each.act for each in left):
            read = await asker.ask("GET", f"/v1/sessions/{act.uid}?all=true")
            act.answers += read.json()["tree"]
        alone = await stream_turns(asker, NUM_TURNS, NAME)
    assert [len(each.act.answers) for each in left] == [1] * NUM_TURNS
    assert [shown(each.act) for each in left] == [shown(act) for act in alone]


class BlindLiveStore(RedisLiveStore):
    """Its ingress never sees a turn that nobody tells."""

    async def patrol(self, ingress: str, holds: Sequence[Hold], is_leaving: bool) -> Round:
        return replace(await super().patrol(ingress, holds, is_leaving), orphans=())


async def test_a_server_that_looks_for_none_leaves_some(store_url: str, effects: Path) -> None:
    """The check above finds it."""
    world = World(Parts(live=BlindLiveStore), store_url, effects, pause_s=0.06)
    async with running_world(world), httpx.AsyncClient(trust_env=False) as http:
        asker = Asker(http, world.site.url, "ann", "ann", Record())
        _, endless = await run(world, asker, 4)
    assert endless, "those of the ingress that died"
