"""`/health` of a real server whose rank is killed or stopped in the middle of a reply: how soon it
says so, that it says nothing under the largest prompts, and what it lists."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.e2e.components import processes_of
from tests.e2e.moss_process import MossProcess

ASK_EVERY_S = 0.05
LOST_S, STUCK_S = 1.0, 2.0
RECOVERY_S = 60
BUSY_S = 1.0  # beyond the bars, on a machine that other tests share


@dataclass
class Seen:
    """When `/health` was asked and what it said, in seconds of `time.monotonic`."""

    answers: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)

    def first(self, status: int, since: float) -> float:
        """Seconds from `since` to the first answer of that status."""
        return min(at for at, found, _ in self.answers if found == status and at > since) - since


@asynccontextmanager
async def watched(server: MossProcess) -> AsyncIterator[tuple[httpx.AsyncClient, Seen]]:
    """Asks all the time, for the length of the block, while one endless reply is streamed."""
    seen = Seen()
    async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client:
        tasks = [asyncio.create_task(each) for each in (_ask(client, seen), _stream(client))]
        try:
            yield client, seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(client: httpx.AsyncClient, seen: Seen) -> None:
    while True:
        response = await client.get("/health")
        seen.answers.append((time.monotonic(), response.status_code, response.json()))
        await asyncio.sleep(ASK_EVERY_S)


async def _stream(client: httpx.AsyncClient) -> None:
    """Steps without an end, whatever becomes of each reply."""
    body = {"prompt": "讲故事", "max_tokens": 900, "ignore_eos": True}
    while True:
        with suppress(httpx.HTTPError):
            response = await client.post("/v1/completions", json=body)
            assert response.status_code in (200, 500, 503), response.text
        await asyncio.sleep(0.01)


async def _until(seen: Seen, status: int, since: float) -> float:
    async with asyncio.timeout(RECOVERY_S):
        while not any(found == status and at > since for at, found, _ in seen.answers):
            await asyncio.sleep(ASK_EVERY_S)
    return seen.first(status, since)


async def _disturb(server: MossProcess, seen: Seen, *, kill: bool) -> float:
    """Seconds until `/health` was 503; returns when it is 200 again."""
    (rank,) = processes_of(server, "rank")
    disturbed = time.monotonic()
    (psutil.Process.kill if kill else psutil.Process.suspend)(rank)
    told = await _until(seen, 503, disturbed)
    await _until(seen, 200, disturbed + told)
    await asyncio.sleep(2)  # of steps
    meanwhile = [body for at, found, body in seen.answers if found == 503 and at > disturbed]
    loading = [group for body in meanwhile for group in body["groups"] if group["phase"]]
    assert {(group["state"], group["ranks"]) for group in loading} == {("loading", 2)}
    return told


def _assert_the_model_comes_first(server: MossProcess) -> None:
    niceness = {
        component: {process.nice() for process in processes_of(server, component)}
        for component in ("proxy", "ingress", "replica", "rank")
    }
    assert min(niceness["proxy"] | niceness["ingress"]) > max(niceness["replica"]), niceness
    assert niceness["replica"] == niceness["rank"]


async def test_a_lost_and_a_stuck_rank_are_told_soon_and_a_large_prompt_never(
    tmp_path: Path,
) -> None:
    with MossProcess(tmp_path, "--drain", "0") as server:
        async with watched(server) as (client, seen):
            await asyncio.sleep(2)
            _assert_the_model_comes_first(server)
            await _largest_prompts(client)
            assert {status for _, status, _ in seen.answers} == {200}
            (group,) = seen.answers[-1][2]["groups"]
            assert (group["state"], group["ranks"]) == ("serving", 2)
            assert group["replica"] == server.stats()["replicas"][0]["replica"]
            lost = await _disturb(server, seen, kill=True)
            stuck = await _disturb(server, seen, kill=False)
            print(f"/health says 503 {lost:.2f} s after a kill, {stuck:.2f} s after a stop")
            assert seen.answers[-1][2]["groups"][0]["replica"] != group["replica"]
            assert lost <= LOST_S + BUSY_S
            assert STUCK_S / 2 < stuck <= STUCK_S + BUSY_S


async def _largest_prompts(client: httpx.AsyncClient) -> None:
    """Four at once that fill the context, none of which another one's cache helps."""
    bodies = [{"prompt": [100 + n, *range(1, 1000)], "max_tokens": 4} for n in range(4)]
    done = await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
    assert {response.status_code for response in done} == {200}, done[0].text
