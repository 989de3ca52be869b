"""More chats at once than the server can serve: each is answered or refused at the door.

`make chaos` runs it. A limit of ours is a 429 with Retry-After, never somebody else's failure,
and a reply that has begun ends whole.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.moss_process import MossProcess

BURST = 400
STREAMS, PER_SECOND = 900, 33
TIMEOUT_S = 400
Ask = Callable[[httpx.AsyncClient, int], Awaitable[int | str]]
NO_LIMIT = httpx.Limits(max_connections=None, max_keepalive_connections=0)


async def _post(client: httpx.AsyncClient, number: int) -> int:
    response = await client.post("/", json={"prompt": f"你好 {number}"})
    if response.status_code == 429:
        assert int(response.headers["Retry-After"]) >= 1
    return response.status_code


async def _stream(client: httpx.AsyncClient, number: int) -> str:
    """How the stream ended: `whole`, `refused`, or what went wrong."""
    await asyncio.sleep(number / PER_SECOND)
    body = {"prompt": f"讲故事 {number}", "temperature": 3.0, "top_p": 1.0, "plugins": []}
    async with client.stream("POST", "/", json={**body, "stream": True}) as response:
        if response.status_code == 429:
            return "refused"
        if response.status_code != 200:
            return f"{response.status_code}: {(await response.aread())[:200]!r}"
        text = (await response.aread()).decode()
    last = json.loads(text.rstrip().rpartition("data: ")[2])
    return "whole" if last.get("status") == 200 else f"after the reply had begun: {last}"


async def _gather(url: str, ask: Ask, count: int) -> Counter[int | str]:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=NO_LIMIT) as client:
        return Counter(await asyncio.gather(*(ask(client, i) for i in range(count))))


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_only_the_door_refuses(tmp_path: Path) -> None:
    with MossProcess(tmp_path) as server:
        burst = asyncio.run(_gather(server.url, _post, BURST))
        streams = asyncio.run(_gather(server.url, _stream, STREAMS))
        server.wait_idle(120)
    print(burst, streams)
    assert set(burst) <= {200, 429} and burst[200] >= 64
    assert set(streams) <= {"whole", "refused"} and streams["whole"] >= 64
