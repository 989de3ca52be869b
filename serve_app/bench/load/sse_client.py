"""Turns over HTTP, with the times at which their pieces come; and the server's token counts.

It speaks MOSS's demo API and knows nothing of the model behind it.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx

from moss_tp.errors import MossError

CONNECT_TIMEOUT_S = 10


class BenchError(MossError):
    """The server that is to be measured is not there, refuses or cannot be counted."""


@dataclass(frozen=True)
class StreamedTurn:
    """`piece_times` count from the turn's own start; the last of them is its end."""

    start: float
    piece_times: list[float]
    uid: str

    @property
    def first_s(self) -> float:
        return self.piece_times[0]

    @property
    def end(self) -> float:
        return self.start + self.piece_times[-1]

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in pairwise(self.piece_times)]


@dataclass(frozen=True)
class TokenCounts:
    """What a server's engine has done since it started."""

    prompt: int
    cached: int
    output: int

    def since(self, earlier: "TokenCounts") -> "TokenCounts":
        return TokenCounts(
            self.prompt - earlier.prompt,
            self.cached - earlier.cached,
            self.output - earlier.output,
        )


class SseClient:
    """Any number of turns at once on the server at `url`. Raises BenchError."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None),
            transport=transport,
        )

    async def __aenter__(self) -> "SseClient":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def turn(self, prompt: str, **fields: Any) -> StreamedTurn:
        """One streamed turn to its end."""
        start = time.perf_counter()
        times: list[float] = []
        body = {"prompt": prompt, "stream": True, **fields}
        try:
            async with self._http.stream("POST", self._url, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    text = (await response.aread()).decode(errors="replace")
                    raise BenchError(f"the server answered {response.status_code}: {text[:200]}")
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        event = json.loads(line.removeprefix("data:"))
                        times.append(time.perf_counter() - start)
                        if "delta" not in event:
                            return StreamedTurn(start, times, _uid(event))
        except httpx.HTTPError as error:
            raise BenchError(f"the connection to {self._url} failed: {error!r}") from error
        raise BenchError("the server broke off its reply")

    async def turns(self, prompts: Sequence[str], **fields: Any) -> list[StreamedTurn]:
        """As many chats at once."""
        return await asyncio.gather(*(self.turn(prompt, **fields) for prompt in prompts))

    async def counts(self) -> TokenCounts:
        try:
            stats = (await self._http.get(f"{self._url}/stats")).json()
            names = ("prompt_tokens", "cached_tokens", "output_tokens")
            return TokenCounts(*(int(stats[name]) for name in names))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{self._url}/stats does not count tokens: {error!r}") from error


def _uid(event: dict[str, Any]) -> str:
    """Of a turn's last event."""
    if "uid" not in event:
        raise BenchError(f"the server failed: {event.get('error', event)}")
    return str(event["uid"])
