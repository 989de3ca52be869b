"""One HTTP exchange: a bounded body, a client that may disconnect, a stream that is never silent.

The work runs in its own task and is cancelled once, when the client disconnects or the server
drops the exchange, so its clean-up can still wait for the store. It does not depend on chats.
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
from serve_app.streams import with_timeouts

T = TypeVar("T")

_PING = ": ping\n\n"  # a comment in SSE: clients skip it, proxies see that the stream is alive


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises BodyTooLargeError as soon as more than `max_bytes` have arrived."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLargeError(f"the body is larger than {max_bytes} bytes")
    return bytes(body)


async def run_until_disconnect(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of `work`. If the client disconnects first, cancels it; raises ClientDisconnect.

    The body must have been read already, so that `receive` returns nothing but the disconnect.
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
    """Server-sent events, one JSON value each, and a `: ping` after every `ping_s` of silence.

    The status line is sent with the first event or ping, so an early failure is an ordinary
    error response; a later one is sent as the last event, `{"error": …}`.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any]], ping_s: float) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = with_timeouts(events, lambda: ping_s)

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
