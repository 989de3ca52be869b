"""Streams replies over HTTP and records when their pieces arrive; reads the server's token counts.

It speaks the demo API, chat completions and live turns, and does not depend on the model.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx

from serve_app.bench.load.errors import BenchError
from serve_app.client.connect import async_http_client
from serve_app.client.events import error_message, parse_event
from serve_app.client.sse import EventStreamReader

CONNECT_TIMEOUT_S = 10
DONE = "[DONE]"  # the end of a stream of chat completions, after the usage
Event = Mapping[str, Any]


@dataclass(frozen=True)
class StreamedTurn:
    """`start` is on `time.perf_counter`'s clock; `piece_times` are seconds after it, the last of
    them that of the `last` event."""

    start: float
    piece_times: list[float]
    last: Event

    @property
    def uid(self) -> str:
        """Of the chat, for a turn of the demo API."""
        return str(self.last["uid"])

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
        """Streams one turn of the demo API; `fields` are further fields of the request's body."""
        body = {"prompt": prompt, **fields}
        turn = await self._reply("/", body, lambda event: "delta" not in event)
        return _checked(turn, "uid")

    async def chat(self, prompt: str, **fields: Any) -> StreamedTurn:
        """Streams one chat completion, which belongs to no session."""
        messages = [{"role": "user", "content": prompt}]
        body = {"messages": messages, "stream_options": {"include_usage": True}, **fields}
        return _checked(await self._reply("/v1/chat/completions", body, _is_end), "usage")

    async def live_turn(self, uid: str, prompt: str, **fields: Any) -> StreamedTurn:
        """Streams one live turn of a session."""
        body = {"user": prompt, **fields}
        return _checked(await self._reply(f"/v1/sessions/{uid}/turns", body, _is_end), "usage")

    async def new_session(self) -> str:
        """The uid of a session without turns."""
        try:
            response = await self._http.post(f"{self._url}/v1/sessions", json={})
            return str(response.raise_for_status().json()["id"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise BenchError(f"{self._url} makes no session: {error!r}") from error

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

    async def _reply(
        self, path: str, body: dict[str, Any], is_last: Callable[[Event], bool]
    ) -> StreamedTurn:
        start = time.perf_counter()
        times: list[float] = []
        async with self._stream(path, {**body, "stream": True}) as events:
            async for event in events:
                times.append(time.perf_counter() - start)
                if is_last(event):
                    return StreamedTurn(start, times, event)
        raise BenchError("the connection closed before the reply was complete")

    @asynccontextmanager
    async def _stream(
        self, path: str, body: dict[str, Any]
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events of the response to `body`."""
        try:
            async with self._http.stream("POST", self._url + path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise BenchError(error_message(response.status_code, await response.aread()))
                yield _events(response)
        except httpx.HTTPError as error:
            raise BenchError(f"the connection to {self._url} failed: {error!r}") from error
        except ValueError as error:
            raise BenchError(f"{self._url} does not speak MOSS's API: {error}") from error


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    reader = EventStreamReader()
    async for chunk in response.aiter_bytes():
        for event in reader.feed(chunk):
            if event.data == DONE:
                return
            yield parse_event(event.data)


def _is_end(event: Event) -> bool:
    """Whether it is the last one that matters, of a chat completion or a live turn."""
    return bool(event.get("usage")) or "error" in event


def _checked(turn: StreamedTurn, field: str) -> StreamedTurn:
    """`turn`, whose last event has `field` unless the server has failed."""
    if field not in turn.last:
        raise BenchError(f"the server failed: {turn.last.get('error', turn.last)}")
    return turn
