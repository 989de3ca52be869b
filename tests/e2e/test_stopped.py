"""Components that are stopped (SIGSTOP) while clients with `max_time` ask.

A stopped process answers nothing and closes nothing, so nobody is told: each part of the server
must notice it by itself. Posts are answered in time, `/health` tells the truth, and whatever was
stopped is replaced.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.components import processes_of
from tests.e2e.moss_process import MossProcess

MAX_TIME_S = 3
POST_EVERY_S = 0.5
BODY = {"prompt": "计算 2+3", "max_time": MAX_TIME_S}
PATIENCE_S = 150  # of the test, on a busy machine


@dataclass
class Seen:
    """What clients saw, in seconds since the stop: posts by when they were sent."""

    start: float = field(default_factory=time.monotonic)
    posts: list[tuple[float, float, int]] = field(default_factory=list)  # sent, took, status
    health: list[tuple[float, int]] = field(default_factory=list)

    @property
    def now(self) -> float:
        return time.monotonic() - self.start

    @property
    def longest(self) -> float:
        return max(took for _, took, _ in self.posts)

    @property
    def serves_again_at(self) -> float:
        """When the first post was answered that ended an uninterrupted success."""
        failed = [sent for sent, _, status in self.posts if status != 200]
        last = max(failed, default=-1.0)
        return min((sent + took for sent, took, _ in self.posts if sent > last), default=0.0)


async def _post(client: httpx.AsyncClient, seen: Seen) -> None:
    sent = seen.now
    status = await _status(client.post("/", json=BODY))
    seen.posts.append((sent, seen.now - sent, status))


async def _ask_health(client: httpx.AsyncClient, seen: Seen) -> None:
    while True:
        seen.health.append((seen.now, await _status(client.get("/health"))))
        await asyncio.sleep(0.2)


async def _status(request: Awaitable[httpx.Response]) -> int:
    """The status code; 0 without an answer."""
    try:
        return (await request).status_code
    except httpx.TransportError:
        return 0


@asynccontextmanager
async def clients(server: MossProcess) -> AsyncIterator[Seen]:
    """Posts every POST_EVERY_S, and `/health`, for the length of the block and a bit more."""
    seen = Seen()
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=server.url, timeout=PATIENCE_S, limits=limits, trust_env=False
    ) as client:
        posts: list[asyncio.Task[None]] = []

        async def post_often() -> None:
            while True:
                posts.append(asyncio.create_task(_post(client, seen)))
                await asyncio.sleep(POST_EVERY_S)

        background = [
            asyncio.create_task(post_often()),
            asyncio.create_task(_ask_health(client, seen)),
        ]
        try:
            yield seen
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*posts)


async def observe(
    server: MossProcess, stopped: Sequence[psutil.Process], hold_s: float | None = None
) -> Seen:
    """Stops the processes until posts work again, or for `hold_s` seconds and until then."""
    server.ask("计算 1+1")
    for process in stopped:
        process.suspend()
    async with clients(server) as seen:
        if hold_s is not None:
            await asyncio.sleep(hold_s)
            _resume(stopped)
        while not _all_served(seen):
            assert seen.now < PATIENCE_S, seen
            await asyncio.sleep(0.2)
    return seen


def _resume(stopped: Sequence[psutil.Process]) -> None:
    """Those that were not replaced."""
    for process in stopped:
        if process.is_running():
            process.resume()


def _all_served(seen: Seen) -> bool:
    """Whether the last few posts got a reply."""
    last = [status for _, _, status in seen.posts[-6:]]
    return len(last) == 6 and set(last) == {200}


async def test_a_stopped_rank_is_replaced_while_every_client_gets_an_answer(
    tmp_path: Path,
) -> None:
    with MossProcess(tmp_path) as server:
        (rank,) = processes_of(server, "rank")
        seen = await observe(server, [rank])
        assert not rank.is_running()
        assert rank.pid not in server.stats()["rank_pids"]
        # 429: it could not have been served before its deadline.
        assert {200, 408} <= {status for _, _, status in seen.posts} <= {200, 408, 429}
        assert 503 in {status for _, status in seen.health}
        assert server.health() == 200
        assert seen.longest < MAX_TIME_S + 10, "on a busy machine"


def report(component: str, seen: Seen) -> str:
    """A line of what clients saw."""
    told = [at for at, status in seen.health if status == 503]
    health = f"{min(told):.1f} to {max(told):.1f} s" if told else "never"
    return (
        f"{component}: longest answer {seen.longest:.1f} s, /health 503 {health}, "
        f"serves again after {seen.serves_again_at:.1f} s"
    )


# The requests of a stopped proxy or ingress cannot be answered: they have a test of their own.
COMPONENTS = ("rank", "replica", "plugin", "store", "controller", "gcs", "raylet")
STOP_S = 40


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_each_component_stopped_in_turn(tmp_path: Path) -> None:
    seen_by: dict[str, Seen] = {}
    with MossProcess(tmp_path) as server:
        for component in COMPONENTS:
            seen = await observe(server, processes_of(server, component), STOP_S)
            print(report(component, seen))
            seen_by[component] = seen
    for component, seen in seen_by.items():
        assert {status for _, _, status in seen.posts} <= {200, 408, 500, 503}
        assert seen.longest <= MAX_TIME_S + 1, component
        assert seen.serves_again_at <= 15, component
        was_told = 503 in {status for _, status in seen.health}
        assert was_told == (component in ("rank", "replica")), component


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("component", ["ingress", "proxy"])
async def test_what_answers_clients_is_replaced(tmp_path: Path, component: str) -> None:
    with MossProcess(tmp_path) as server:
        seen = await observe(server, processes_of(server, component), STOP_S)
        print(report(component, seen))
        assert seen.serves_again_at <= 15
