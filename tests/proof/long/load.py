"""Load on a real engine: so many requests at once, or so many a second whatever becomes of them.

A request is a chat completion of a number of tokens, thoughts and reply, by a model that never ends
by itself: so all are the same work. The client is aiohttp's: with a few hundred requests open,
httpx's pool takes most of a core, which the server needs here.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

TIMEOUT_S = 60.0


def connections() -> aiohttp.ClientSession:
    """Any number at once, a new one for each request."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
    )


@dataclass
class Load:
    """On one server. Each request may take `max_time_s`; None: as long as the server lets it."""

    url: str
    api_key: str
    num_tokens: int
    max_time_s: float | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)  # of whole replies, in seconds
    ended_at: list[float] = field(default_factory=list)  # of whole replies
    refused_in: list[float] = field(default_factory=list)
    num_sent: int = 0

    async def ask(self, http: aiohttp.ClientSession) -> str:
        """The status, or what is wrong with the answer: `cut` is a reply that is not whole."""
        self.num_sent += 1
        began = time.monotonic()
        try:
            async with http.post(
                f"{self.url}/v1/chat/completions",
                json=self._body(),
                headers={"Authorization": f"Bearer {self.api_key}"},
            ) as response:
                status = await _status(response, self.num_tokens)
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        self.statuses[status] += 1
        now = time.monotonic()
        if status == "200":
            self.took.append(now - began)
            self.ended_at.append(now)
        elif status in ("429", "503"):
            self.refused_in.append(now - began)
        return status

    async def keep_busy(
        self, http: aiohttp.ClientSession, num_clients: int, seconds: float
    ) -> float:
        """Whole replies a second to so many clients that ask again at once."""
        until = time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < until:
                await self.ask(http)

        await asyncio.gather(*(client() for _ in range(num_clients)))
        return sum(at <= until for at in self.ended_at) / seconds

    async def offer(self, http: aiohttp.ClientSession, per_s: float, seconds: float) -> float:
        """Whole replies a second while so many requests a second arrive."""
        began = time.monotonic()
        asked: list[asyncio.Task[str]] = []
        while (now := time.monotonic()) < began + seconds:
            while len(asked) < (now - began) * per_s:
                asked.append(asyncio.create_task(self.ask(http)))
            await asyncio.sleep(0.005)
        goodput = sum(at >= began for at in self.ended_at) / seconds
        self.pending = [task for task in asked if not task.done()]
        return goodput

    def _body(self) -> dict[str, object]:
        body: dict[str, object] = {
            "messages": [{"role": "user", "content": f"讲故事 {self.num_sent}"}],
            "seed": self.num_sent,
            "max_completion_tokens": self.num_tokens,
            "plugins": [],
        }
        return body if self.max_time_s is None else {**body, "max_time": self.max_time_s}


async def _status(response: aiohttp.ClientResponse, wanted: int) -> str:
    status = str(response.status)
    if status == "200":
        num_tokens = (await response.json())["usage"]["completion_tokens"]
        return status if num_tokens == wanted else "cut"
    if status in ("429", "503") and int(response.headers.get("Retry-After", 0)) < 1:
        return f"{status} without Retry-After"
    if status not in ("429", "503"):
        return f"{status} {(await response.text())[:80]}"
    return status
