"""What strangers cost the others: a normal client's waits, and the front's memory meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx

from tests.serve_app.front.conftest import RunningFront

MAX_GROWTH = 20 * 2**20  # bytes
MAX_WAIT_S = 0.25  # of nine in ten requests


@dataclass
class Watch:
    """`waits_s` of a client that asks again and again; `rss` of the front, in bytes, meanwhile."""

    before: int
    waits_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)

    @property
    def p90_s(self) -> float:
        return sorted(self.waits_s)[len(self.waits_s) * 9 // 10]

    @property
    def growth(self) -> int:
        return max(self.rss) - self.before


@asynccontextmanager
async def nobody_disturbed(
    front: RunningFront, client: httpx.AsyncClient, what: str
) -> AsyncIterator[Watch]:
    """Fails if a normal client waits, or the front grows, during the block."""
    watch = Watch(front.rss)
    asking = asyncio.create_task(_ask(watch, front, client))
    try:
        yield watch
        while len(watch.waits_s) < 5:  # the block may be over at once
            await asyncio.sleep(0.02)
            assert not asking.done(), asking.exception()
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    print(
        f"{what}: {len(watch.waits_s)} requests of a normal client, p90 {watch.p90_s:.3f} s,"
        f" longest {max(watch.waits_s):.3f} s; RSS + {watch.growth / 2**20:.1f} MB"
    )
    assert watch.p90_s < MAX_WAIT_S, "a normal client waits"
    assert watch.growth < MAX_GROWTH


async def _ask(watch: Watch, front: RunningFront, client: httpx.AsyncClient) -> None:
    while True:
        began = time.monotonic()
        response = await client.get("/hello")
        assert response.status_code == 200
        watch.waits_s.append(time.monotonic() - began)
        watch.rss.append(front.rss)
        await asyncio.sleep(0.02)
