"""No acknowledged turn is lost or doubled when the store is killed, or its power is."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moss_tp.errors import MossError
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.session import Turn, new_token
from tests.proof.figures import measured
from tests.serve_app.conftest import PROGRAMS
from tests.serve_app.sessions.power_loss import PowerLoss
from tests.serve_app.sessions.turns import a_lease, a_turn
from tests.serve_app.store_server import StoreServer
from tests.support.waiting import until

NUM_WRITERS = 20
IMPATIENT = StoreSettings(answer_timeout_s=0.5, patience_s=0.5, commit_patience_s=0.2)
rounds = pytest.mark.parametrize("num_rounds", [2, pytest.param(10, marks=pytest.mark.chaos)])


@dataclass
class Writer:
    """Appends turns to a chat of its own; `acked` are those of which it was told."""

    store: RedisSessionStore
    uid: str = field(default_factory=new_token)
    acked: list[Turn] = field(default_factory=list)
    sent: dict[str, Turn] = field(default_factory=dict)

    async def write(self, stopping: asyncio.Event) -> None:
        """A turn that fails is sent again with its key, as clients do."""
        while not stopping.is_set():
            parent = self.acked[-1].id if self.acked else ""
            lease = a_lease(self.uid)
            turn = self.sent[lease.key] = a_turn(lease.key, random.randbytes(200).hex(), parent)
            while True:
                try:
                    self.acked.append(await self.store.commit(lease, len(self.acked), turn))
                    break
                except MossError:
                    await asyncio.sleep(0.01)
                if stopping.is_set():
                    return

    async def check(self) -> None:
        """What was acked is there, in order, once; at most the last one sent is there besides."""
        session = await self.store.load(self.uid, "ann")
        tree = list(session.tree) if session else []
        assert tree[: len(self.acked)] == self.acked, "an acked turn is lost"
        assert len({turn.key for turn in tree}) == len(tree) <= len(self.acked) + 1
        assert all(self.sent[turn.key].reply == turn.reply for turn in tree)
        self.acked = tree


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[list[Writer]]:
    store = RedisSessionStore(url, IMPATIENT)
    try:
        yield [Writer(store) for _ in range(NUM_WRITERS)]
    finally:
        await store.close()


def num_acked(writers: list[Writer]) -> int:
    return sum(len(writer.acked) for writer in writers)


async def work(writers: list[Writer], crash: Callable[[], object]) -> None:
    """All write; in the middle of it the store crashes, and comes back."""

    stopping, before = asyncio.Event(), num_acked(writers)
    tasks = [asyncio.create_task(writer.write(stopping)) for writer in writers]
    await until(lambda: num_acked(writers) > before + NUM_WRITERS)
    await asyncio.sleep(random.uniform(0, 0.2))
    await asyncio.to_thread(crash)
    await asyncio.sleep(0.2)
    stopping.set()
    await asyncio.gather(*tasks)


async def work_and_check(
    writers: list[Writer], num_rounds: int, crash: Callable[[], object]
) -> None:
    for _ in range(num_rounds):
        await work(writers, crash)
        for writer in writers:
            await writer.check()


@rounds
async def test_kill_9_under_writers_loses_no_acked_turn(
    own_server: StoreServer, num_rounds: int
) -> None:
    def crash() -> None:
        own_server.kill()
        own_server.start()

    with measured("store-kill") as texts:
        async with writing(own_server.url) as writers:
            await work_and_check(writers, num_rounds, crash)
            texts.append(f"{num_rounds} rounds: 0 of {num_acked(writers)} acked turns lost")


async def lose_power(directory: Path, program: str, num_rounds: int, fsync: str) -> str:
    """Writers of a server whose power fails in each round; returns what that cost."""
    num_lost = 0
    (directory / "data").mkdir()
    power = PowerLoss(directory)
    with StoreServer(directory / "data", program, fsync, power.environment) as server:

        def crash() -> None:
            nonlocal num_lost
            server.kill()
            num_lost += power.cut(server.directory)
            server.start()

        async with writing(server.url) as writers:
            await work_and_check(writers, num_rounds, crash)
            acked = num_acked(writers)
    return f"0 of {acked} acked turns lost with {num_lost} unsynced bytes"


@pytest.mark.needs("cc")
@pytest.mark.parametrize("program", PROGRAMS)
@rounds
async def test_a_power_loss_loses_no_acked_turn(
    tmp_path: Path, program: str, num_rounds: int
) -> None:
    with measured("store-power") as texts:
        told = await lose_power(tmp_path, program, num_rounds, "always")
        texts.append(f"{program}, {num_rounds} rounds: {told}")


@pytest.mark.needs("cc")
async def test_a_store_that_does_not_sync_would_lose_turns(tmp_path: Path) -> None:
    """So that the test above could fail."""
    with pytest.raises(AssertionError, match="an acked turn is lost"):
        await lose_power(tmp_path, "valkey", 1, "no")
