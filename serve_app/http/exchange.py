"""One HTTP exchange's edges: a bounded body, a client that may leave, a stream of events that
is never silent for long.

Work runs in a task of its own and is cancelled once, when the client leaves or the server gives
the exchange up, so that its clean-up can still wait for the store. Knows nothing of chats.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.errors import BodyTooLargeError
from serve_app.http.errors import error_body

T = TypeVar("T")

_PING = ": ping\n\n"  # a comment: readers of events skip it, proxies see life


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body; BodyTooLargeError as soon as it is larger than `max_bytes`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLargeError(f"the body is larger than {max_bytes} bytes")
    return bytes(body)


async def run_until_disconnect(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of `work`; cancels it and raises ClientDisconnect when the client leaves first.

    The body must have been read: `receive` then tells of nothing but the client's leaving.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, each one JSON value, and a `: ping` whenever none came for `ping_s`.

    The status waits for whichever is first, so what fails fast is an ordinary error response;
    what fails later is told as a last event, `{"error": …}`.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any]], ping_s: float) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = _with_pauses(events, ping_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await run_until_disconnect(self._send_all(send), receive)

    async def _send_all(self, send: Send) -> None:
        has_begun = False
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    if not has_begun:
                        await self._begin(send)
                        has_begun = True
                    await self._send(send, _PING if event is None else _data(event))
            except Exception as error:
                if not has_begun:
                    raise
                await self._send(send, _data(error_body(error)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)

    async def _send(self, send: Send, text: str) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def _data(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


async def _with_pauses(
    events: AsyncGenerator[dict[str, Any]], pause_s: float
) -> AsyncGenerator[dict[str, Any] | None]:
    """`events`, and None whenever the next has not come for `pause_s`. Closing it closes them."""
    upcoming: asyncio.Future[dict[str, Any] | None] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events, None))
            await asyncio.wait({upcoming}, timeout=pause_s)
            if not upcoming.done():
                yield None
                continue
            event, upcoming = upcoming.result(), None
            if event is None:
                return
            yield event
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await events.aclose()
