"""Ingresses that die or stand still under streamed turns, and clients that leave: in this process.

The long forms are chaos, on a real server.
"""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.live.redis import RedisLiveStore
from tests.proof.history.asking import AgainError, Asker, pause
from tests.proof.history.posting import Posting
from tests.proof.history.record import Act, Record
from tests.proof.history.run import History
from tests.proof.world import Parts, World, running_world

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NUM_TURNS = 8


async def _new_session(asker: Asker) -> str:
    """On a busy machine the ingress may be killed meanwhile."""
    while True:
        try:
            made = await asker.ask("POST", "/v1/sessions", json={})
        except AgainError as error:
            await pause(error.after_s)
        else:
            return str(made.json()["id"])


async def stream_turns(asker: Asker, num_turns: int, name: str) -> list[Act]:
    """A first turn of as many sessions, at once, each told in a stream to its end."""

    async def one(number: int) -> Act:
        uid = await _new_session(asker)
        asker.record.owners[uid] = asker.tenant
        act = Act(asker.tenant, "turn", f"{name}-{number:012}", f"canary {number}", uid)
        asker.record.acts.append(act)
        body = {"user": act.user, "stream": True}
        await Posting(asker, act, f"/v1/sessions/{uid}/turns", body).run(60)
        return act

    return list(await asyncio.gather(*(one(number) for number in range(num_turns))))


def shown(act: Act) -> dict[str, Any]:
    """What must not depend on kills."""
    turn = act.answers[0]
    return {name: turn[name] for name in ("user", "thoughts", "reply", "seed", "finish_reason")}


async def test_streams_of_an_ingress_that_dies_go_on_to_the_same_bytes(
    store_url: str, effects: Path
) -> None:
    world = World(Parts(), store_url, effects, pause_s=0.03)
    async with running_world(world), httpx.AsyncClient(trust_env=False) as http:
        asker = Asker(http, world.site.url, "ann", "ann", Record())
        streaming = asyncio.create_task(stream_turns(asker, NUM_TURNS, "same-key"))
        await asyncio.sleep(1.0)
        await world.kill_one()
        disturbed = await streaming
        assert asker.record.gaps, "no stream broke"
        undisturbed = await stream_turns(asker, NUM_TURNS, "same-key")
    # Keys are a session's, and the seed is the key's.
    assert [shown(act) for act in disturbed] == [shown(act) for act in undisturbed]
    assert History(world.site, 0, record=asker.record).faults_so_far() == []


class StoppedLiveStore(RedisLiveStore):
    """That of a process which is stopped from time to time: it asks the store nothing meanwhile."""

    gate = asyncio.Event()

    async def append(self, *args: Any) -> Any:
        await self.gate.wait()
        return await super().append(*args)

    async def patrol(self, *args: Any) -> Any:
        await self.gate.wait()
        return await super().patrol(*args)


async def test_a_teller_that_stood_still_tells_nothing_more(store_url: str, effects: Path) -> None:
    class Stopped(StoppedLiveStore):
        gate = asyncio.Event()

    Stopped.gate.set()
    world = World(Parts(live=Stopped), store_url, effects, pause_s=0.03)
    async with running_world(world), httpx.AsyncClient(trust_env=False) as http:
        first, second = world.ingresses[0], World(Parts(), store_url, effects, pause_s=0.03)
        asker = Asker(http, lambda: first.url, "ann", "ann", Record())
        telling = asyncio.create_task(stream_turns(asker, 2, "stopped-key"))
        await asyncio.sleep(0.8)
        Stopped.gate.clear()
        await second.add()
        await asyncio.sleep(2.0)  # four times as long as a hold lasts
        Stopped.gate.set()
        acts = await telling
        tree = (await asker.ask("GET", f"/v1/sessions/{acts[0].uid}?all=true")).json()["tree"]
        await second.ingresses[0].die()
    assert [turn["reply"] for turn in tree] == [acts[0].answers[0]["reply"]], "one commit"
    assert History(world.site, 0, record=asker.record).faults_so_far() == []


async def test_clients_that_leave_cost_the_others_nothing(store_url: str, effects: Path) -> None:
    """The turns of three of twelve are cancelled: the others are as they would have been."""
    world = World(Parts(), store_url, effects, pause_s=0.02)
    async with running_world(world), httpx.AsyncClient(trust_env=False) as http:
        asker = Asker(http, world.site.url, "ann", "ann", Record())

        async def cancelled() -> Act:
            uid = (await asker.ask("POST", "/v1/sessions", json={})).json()["id"]
            act = Act("ann", "drop", f"drop-{uid}", "canary", uid)
            body = {"user": act.user, "stream": True}
            posting = Posting(asker, act, f"/v1/sessions/{uid}/turns", body, {"keep": False})
            await posting.run(30)
            return act

        others = asyncio.create_task(stream_turns(asker, 9, "left-key"))
        dropped = await asyncio.gather(*(cancelled() for _ in range(3)))
        acts = await others
        alone = await stream_turns(asker, 9, "left-key")
    assert {act.state for act in dropped} == {"failed"}
    assert [shown(act) for act in acts] == [shown(act) for act in alone]
