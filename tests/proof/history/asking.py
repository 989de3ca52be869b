"""An HTTP client of one tenant: sends, checks the form of every answer, reads event streams."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from serve_app.client.sse import EventStreamReader
from tests.proof.history.record import Record, Stream, canary_of

TENANTS = ("ann", "bob")
# Expected while something restarts, or another turn runs; all of them are asked again.
PASSING = {
    408: ("deadline_exceeded",),
    409: ("session_busy", "idempotency_in_progress"),
    429: ("queue_full", "rate_limit_exceeded"),
    500: ("engine_error",),
    503: ("overloaded", "draining", "store_unavailable", "turn_not_stored"),
}
WAITING = ("session_busy", "idempotency_in_progress")
OnEvent = Callable[[int, str, Mapping[str, Any]], Awaitable[None]]


class AgainError(Exception):
    """There was no answer, or one that says to ask again later."""

    def __init__(self, after_s: float = 0.0, code: str = "") -> None:
        super().__init__(code)
        self.after_s, self.code = after_s, code


class BrokenError(Exception):
    """A stream broke off; `after` is the number of the last event."""

    def __init__(self, turn: str, after: int) -> None:
        super().__init__(turn)
        self.turn, self.after = turn, after


@dataclass
class Asker:
    """`url()` is that of some server; `record` takes what is wrong with an answer by itself."""

    http: httpx.AsyncClient
    url: Callable[[], str]
    tenant: str
    api_key: str
    record: Record
    codes: Counter[str] = field(default_factory=Counter)
    read_s: float = 30  # how long it waits for more of an answer

    async def ask(self, method: str, path: str, key: str = "", **rest: Any) -> httpx.Response:
        """An answer that is final. Raises AgainError."""
        try:
            response = await self.http.request(
                method, self.url() + path, headers=self._headers(key), timeout=self.read_s, **rest
            )
        except httpx.TransportError:
            raise AgainError(0.1) from None
        return self._checked(response, response.text)

    async def follow(
        self,
        method: str,
        path: str,
        key: str = "",
        after: int = -1,
        turn: str = "",
        on_event: OnEvent | None = None,
        **rest: Any,
    ) -> tuple[str, Mapping[str, Any]] | httpx.Response:
        """The terminal event's kind and data; or the answer, if it is no stream.

        Raises AgainError, and BrokenError for a stream that breaks off.
        """
        headers = self._headers(key) | ({"Last-Event-ID": str(after)} if after >= 0 else {})
        seen: list[tuple[int, str, Mapping[str, Any]]] = []
        is_whole = False
        try:
            async with self.http.stream(
                method, self.url() + path, headers=headers, timeout=self.read_s, **rest
            ) as response:
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    await response.aread()
                    return self._checked(response, response.text)
                async for event in _events(response):
                    seen.append(event)
                    self.look("\n".join(map(str, event)))
                    if event[1] == "turn":
                        turn = str(event[2]["id"])
                    if on_event is not None:
                        await on_event(*event)
            is_whole = True
        except httpx.TransportError:
            pass
        finally:
            self.record.streams.append(Stream(turn, after, tuple(seen), is_whole))
        if seen and seen[-1][1] in ("done", "error") and seen[-1][0] >= 0:
            return seen[-1][1], seen[-1][2]
        if not seen and not turn:
            raise AgainError(0.1)
        raise BrokenError(turn, max([after, *(number for number, _, _ in seen)]))

    def look(self, text: str) -> None:
        """At all that comes: it must hold nothing of another tenant."""
        for other in TENANTS:
            if other != self.tenant and canary_of(other) in text:
                self.record.faults.append(f"G5 foreign: {self.tenant} read {other}'s text")

    def _headers(self, key: str) -> dict[str, str]:
        own = {"Authorization": f"Bearer {self.api_key}"}
        return own | ({"Idempotency-Key": key} if key else {})

    def _checked(self, response: httpx.Response, text: str) -> httpx.Response:
        self.look(text)
        status = response.status_code
        self.record.statuses[status] = self.record.statuses.get(status, 0) + 1
        if status < 400:
            return response
        try:
            code = response.json()["error"]["code"]
        except (json.JSONDecodeError, KeyError, TypeError):
            self.record.faults.append(f"G6 no error object: {status} {text[:200]}")
            raise AgainError(1) from None
        self.codes[f"{status} {code}"] += 1
        if code in PASSING.get(status, ()):
            after_s = float(response.headers.get("Retry-After", 0))
            if status in (429, 503) and after_s <= 0:
                self.record.faults.append(f"G6 no Retry-After: {status} {code}")
            raise AgainError(after_s, code)
        if status >= 500:
            self.record.faults.append(f"G6 unexpected: {status} {text[:200]}")
            raise AgainError(1)
        return response


async def _events(response: httpx.Response) -> AsyncIterator[tuple[int, str, Mapping[str, Any]]]:
    """Events without a number, which are those of a connection that ends, have -1."""
    reader, last = EventStreamReader(), ""
    async for chunk in response.aiter_bytes():
        for event in reader.feed(chunk):
            number = int(event.last_id) if event.last_id != last else -1
            last = event.last_id
            yield number, event.type, json.loads(event.data)


async def pause(seconds: float) -> None:
    """Patient, but not for longer than a test may take."""
    await asyncio.sleep(min(seconds, 1.0) + 0.02)
