"""Streams turns over HTTP and records when their pieces arrive; reads the server's token counts.

It uses the demo API and does not depend on the model behind it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx

from serve_app.bench.load.errors import BenchError
from serve_app.client.connect import async_http_client
from serve_app.client.events import ReplyEvents, error_message

CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class StreamedTurn:
    """`start` is on `time.perf_counter`'s clock; `piece_times` are seconds after it, the last of
    them the end of the turn."""

    start: float
    piece_times: list[float]
    uid: str

    @property
    def first_s(self) -> float:
        """Time to the first piece."""
        return self.piece_times[0]

    @property
    def end(self) -> float:
        return self.start + self.piece_times[-1]

    @property
    def gaps_s(self) -> list[float]:
        """Times between consecutive pieces."""
        return [after - before for before, after in pairwise(self.piece_times)]


@dataclass(frozen=True)
class TokenCounts:
    """Tokens that the server's engine has processed since it started."""

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
    """Runs any number of concurrent turns on the server at `url`.

    Raises ProxyError when it is made, BenchError later.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._http = async_http_client(self._url, CONNECT_TIMEOUT_S)

    async def __aenter__(self) -> "SseClient":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def turn(self, prompt: str, **fields: Any) -> StreamedTurn:
        """Streams one turn to its end; `fields` are further fields of the request's body."""
        start = time.perf_counter()
        times: list[float] = []
        async with self._stream({"prompt": prompt, "stream": True, **fields}) as events:
            async for event in events:
                times.append(time.perf_counter() - start)
                if "delta" not in event:
                    return StreamedTurn(start, times, _uid(event))
        raise BenchError("the connection closed before the reply was complete")

    async def turns(self, prompts: Sequence[str], **fields: Any) -> list[StreamedTurn]:
        """One concurrent turn for each prompt, each in a new chat."""
        return await asyncio.gather(*(self.turn(prompt, **fields) for prompt in prompts))

    async def counts(self) -> TokenCounts:
        """The counters of `/stats`."""
        try:
            stats = (await self._http.get(f"{self._url}/stats")).json()
            names = ("prompt_tokens", "cached_tokens", "output_tokens")
            return TokenCounts(*(int(stats[name]) for name in names))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{self._url}/stats does not count tokens: {error!r}") from error

    @asynccontextmanager
    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events of the response to `body`."""
        try:
            async with self._http.stream("POST", self._url, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise BenchError(error_message(response.status_code, await response.aread()))
                yield _events(response)
        except httpx.HTTPError as error:
            raise BenchError(f"the connection to {self._url} failed: {error!r}") from error
        except ValueError as error:
            raise BenchError(f"{self._url} does not speak MOSS's API: {error}") from error


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    events = ReplyEvents()
    async for chunk in response.aiter_bytes():
        for event in events.feed(chunk):
            yield event


def _uid(event: dict[str, Any]) -> str:
    """The uid in the last event of a turn."""
    if "uid" not in event:
        raise BenchError(f"the server failed: {event.get('error', event)}")
    return str(event["uid"])
