"""A server whose replicas come and go with its load, and what its clients and an onlooker see.

A cycle is a crowd of streams, until all replicas serve, and then a few, until one is left. Those
few go on all the time: so a replica that is stopped has streams.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.components import processes_of
from tests.proof.history.asking import Asker
from tests.proof.history.run import NO_LIMIT, History
from tests.proof.long.streams import asker_of
from tests.proof.serve import NUM_SLOTS
from tests.proof.server import DigestProcess, digest_server, stop
from tests.proof.test_forms import stream_turns

MOST = 3
CROWD, FEW = 100, 4
SLOTS = 40  # so the crowd fills two and a half replicas
DELAY_S = 3
# A stream takes ten seconds.
PAUSE_S, NUM_WORDS = 0.12, 8
LOOK_S = 0.2
# Beyond the delay, until the last replica that is stopped has ended its streams.
DOWN_S = 15
PATIENCE_S = 60


@dataclass(frozen=True)
class Cycle:
    """Seconds from the first request of the crowd until there are replicas, and from the end of its
    last stream until there is one. `drained_s` of them others had streams, and got no more."""

    second_s: float
    all_s: float
    down_s: float
    drained_s: float


@dataclass
class Onlooker:
    """`counts` are numbers of replicas that serve, without repetitions."""

    server: DigestProcess
    counts: list[int] = field(default_factory=list)

    async def watch(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                response = await http.get(f"{self.server.url}/health", timeout=30)
                if response.status_code == 200:
                    self._note(len(response.json()["groups"]))
                await asyncio.sleep(LOOK_S)

    def _note(self, count: int) -> None:
        if self.counts[-1:] != [count]:
            self.counts.append(count)

    async def wait_for(self, least: int, most: int = MOST, within_s: float = PATIENCE_S) -> None:
        """Returns when so many serve."""
        async with asyncio.timeout(within_s):
            while not self.counts or not least <= self.counts[-1] <= most:
                await asyncio.sleep(LOOK_S / 2)

    async def wait_for_processes(self, count: int, within_s: float = PATIENCE_S) -> None:
        """Of replicas, those that start or end included."""
        async with asyncio.timeout(within_s):
            while len(await asyncio.to_thread(processes_of, self.server, "replica")) != count:
                await asyncio.sleep(LOOK_S)

    def num_turns(self) -> int:
        """How often the number changed its direction: once up and once down is one."""
        steps = [b - a for a, b in itertools.pairwise(self.counts)]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


@dataclass
class Crowd:
    """Clients that stream a turn after the other, each in a session of its own."""

    asker: Asker
    name: str
    is_leaving: bool = False

    async def client(self, number: int) -> None:
        turn = 0
        while not self.is_leaving:
            await stream_turns(self.asker, 1, f"{self.name}-{number}-{turn}")
            turn += 1


@asynccontextmanager
async def crowd_of(asker: Asker, name: str, num_clients: int) -> AsyncIterator[None]:
    """They come with the block, which ends when their last streams have ended."""
    crowd = Crowd(asker, name)
    async with asyncio.TaskGroup() as group:
        for number in range(num_clients):
            group.create_task(crowd.client(number))
        yield
        crowd.is_leaving = True


async def run_cycle(asker: Asker, onlooker: Onlooker, name: str) -> Cycle:
    began = time.monotonic()
    async with crowd_of(asker, name, CROWD):
        await onlooker.wait_for(2)
        second_s = time.monotonic() - began
        await onlooker.wait_for(MOST)
        all_s = time.monotonic() - began
        stopping = asyncio.create_task(_when(onlooker.wait_for(1, 1)))
        ending = asyncio.create_task(_when(onlooker.wait_for_processes(1)))
    left = time.monotonic()
    stopped, ended = await stopping, await ending
    return Cycle(second_s, all_s, max(0.0, ended - left), ended - stopped)


async def _when(awaited: Awaitable[None]) -> float:
    """The time of its end."""
    await awaited
    return time.monotonic()


@dataclass
class Result:
    cycles: list[Cycle]
    num_turns: int
    num_streams: int
    num_cut: int
    faults: list[str]

    @property
    def is_flapping(self) -> bool:
        return self.num_turns != 2 * len(self.cycles) - 1


async def run_cycles(server: DigestProcess, num_cycles: int) -> Result:
    async with httpx.AsyncClient(limits=NO_LIMIT, trust_env=False) as http:
        asker, onlooker = asker_of(server, http), Onlooker(server)
        watching = asyncio.create_task(onlooker.watch())
        await onlooker.wait_for(1, 1)
        async with crowd_of(asker, "few", FEW):
            cycles = [await run_cycle(asker, onlooker, f"cycle-{n}") for n in range(num_cycles)]
        await stop(watching)
    record = asker.record
    moved = (server.directory / "data" / "moss.log").read_text("utf-8").count("goes on elsewhere")
    faults = History(server.site, 0, record=record).faults_so_far()
    num_open = sum(act.state != "acked" for act in record.acts)
    num_cut = len(record.gaps) + moved + num_open
    return Result(cycles, onlooker.num_turns(), len(record.acts), num_cut, faults)


@contextmanager
def scaled_server(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[DigestProcess]:
    patch.setenv(NUM_SLOTS, str(SLOTS))
    flags = "--replicas", f"1..{MOST}", "--scale-down-after", str(DELAY_S)
    pace = {"pause_s": PAUSE_S, "num_words": NUM_WORDS}
    with digest_server(directory, patch, *flags, **pace) as server:  # type: ignore[arg-type]
        yield server
