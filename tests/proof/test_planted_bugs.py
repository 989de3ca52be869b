"""The checker finds nothing in a server that is right, and finds each of eight planted bugs."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from tests.proof.bugs import BUGS, Bug
from tests.proof.history.run import History
from tests.proof.world import Parts, World, running_world

# Whoever dies closes nothing.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NUM_CLIENTS = 8
ROUND_S = 1.5
MAX_ROUNDS = 16  # on a busy machine few requests meet
KILL_EVERY_S = 1.0


async def _work(world: World, history: History, seconds: float, *, is_killed: bool = True) -> None:
    """Clients work while ingresses die."""
    if not is_killed:
        await history.work(seconds)
        return
    killing = asyncio.create_task(world.kill_often(KILL_EVERY_S))
    try:
        await history.work(seconds)
    finally:
        killing.cancel()
        with suppress(asyncio.CancelledError):
            await killing


async def test_a_server_that_is_right_has_no_faults(store_url: str, effects: Path) -> None:
    world = World(Parts(), store_url, effects)
    async with running_world(world), History(world.site, NUM_CLIENTS) as history:
        await _work(world, history, 6)
        faults = await history.check()
    print(history, world.num_deaths)
    assert faults == []
    num_deaths, num_acked = world.num_deaths, history.num_acked
    assert num_deaths >= 3 and num_acked >= 10, (num_deaths, num_acked)


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_found(store_url: str, effects: Path, name: str) -> None:
    bug: Bug = BUGS[name]
    world = World(bug.parts, store_url, effects)
    clients = History(world.site, NUM_CLIENTS, patience_s=2, weights=bug.weights)
    async with running_world(world), clients as history:
        for _ in range(MAX_ROUNDS):
            await _work(world, history, ROUND_S, is_killed=bug.is_killed)
            if is_found(history.faults_so_far(), bug):
                return
            faults = await history.check()
            if is_found(faults, bug):
                return
    pytest.fail(f"{name} was not found: {faults}")


def is_found(faults: list[str], bug: Bug) -> bool:
    return any(fault.startswith(bug.found) for fault in faults)
