"""One HTTP exchange: a bounded body, a client that may disconnect, a stream that is never silent.

The work runs in its own task and is cancelled once, when the client disconnects, the server drops
the exchange or its drain is over, so its clean-up can still wait for the store. Work that is being
committed gets a moment to end whole. It does not depend on chats.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, closing, nullcontext
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DrainingError,
    StoreUnavailableError,
)
from serve_app.http.drain import END_S, Drain
from serve_app.http.errors import error_body, find, note_error
from serve_app.streams import with_timeouts

T = TypeVar("T")

MAX_BODY_BYTES = 256 * 1024
BODY_TIMEOUT_S = 30.0
# For work that is being committed; its clean-up comes after it.
COMMIT_S = END_S - 1.0
_CUT = "the server is stopping and could not wait for the end of this turn"
_UNCONFIRMED = "the server is stopping and the session store has not confirmed the turn"
_PING = ": ping\n\n"  # a comment in SSE: clients skip it, proxies see that the stream is alive


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises BodyTooLargeError as soon as more than `max_bytes` have arrived, and
    BodyTimeoutError if it has no end within `timeout_s`."""
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise BodyTooLargeError(f"the body is larger than {max_bytes} bytes")
    except TimeoutError as error:
        raise BodyTimeoutError(f"the body did not arrive within {timeout_s:g} s") from error
    return bytes(body)


async def run_until_disconnect(
    work: Coroutine[Any, Any, T],
    receive: Receive,
    drain: Drain,
    committing: asyncio.Event | None = None,
    *,
    is_reader: bool = False,
) -> T:
    """The result of `work`, which counts as a running turn of `drain`, unless it only reads one.

    If the client disconnects first, or the drain is over, cancels it, and raises ClientDisconnect
    or DrainingError. Work that has set `committing` gets COMMIT_S to end; StoreUnavailableError
    says that nobody knows what it did. The body must have been read already, so that `receive`
    returns nothing but the disconnect.
    """
    committing = committing or asyncio.Event()
    with closing(work), nullcontext() if is_reader else drain.turn():
        task = asyncio.create_task(work)
        watch = asyncio.create_task(_disconnected(receive))
        over = asyncio.create_task(drain.wait_over())
        try:
            await asyncio.wait({task, watch, over}, return_when=asyncio.FIRST_COMPLETED)
            has_left = watch.done() and not task.done()
        finally:
            if committing.is_set():
                await asyncio.wait({task}, timeout=COMMIT_S)
            is_whole = task.done()
            for each in (task, watch, over):
                each.cancel()
            await asyncio.gather(task, watch, over, return_exceptions=True)
        if has_left:
            raise ClientDisconnect
        if is_whole:
            return task.result()
        # The work may have come to its commit while it was being cancelled.
        raise StoreUnavailableError(_UNCONFIRMED) if committing.is_set() else DrainingError(_CUT)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, one JSON value each, and a `: ping` after every `ping_s` of silence.

    A string is sent as it is: OpenAI's `[DONE]` is no JSON.

    The status line is sent with the first event or ping, so an early failure is an ordinary
    error response; a later one is sent as the last event, `{"error": …}`.

    A mere reader can come back for the rest: its stream is whole with the last of `events` only.
    Else it breaks off, the connection with it; when the drain is over it is told nothing else.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[Any],
        ping_s: float,
        drain: Drain,
        committing: asyncio.Event | None = None,
        *,
        is_reader: bool = False,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = with_timeouts(events, lambda: ping_s)
        self._drain = drain
        self._committing = committing
        self._is_reader = is_reader
        self._has_begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await run_until_disconnect(
                self._send_all(send),
                receive,
                self._drain,
                self._committing,
                is_reader=self._is_reader,
            )
        except ClientDisconnect:
            return
        except Exception as error:
            if not self._has_begun:
                raise
            if not (self._is_reader and isinstance(error, DrainingError)):
                note_error(scope, find(error))
                await self._send(send, self.encode(error_body(error)))
            if self._is_reader:
                return  # the body stays without an end: the ASGI server closes the connection
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                await self._send_event(send, event)

    async def _send_event(self, send: Send, event: Any) -> None:
        """None is a ping."""
        await self._send_text(send, _PING if event is None else self.encode(event))

    async def _send_text(self, send: Send, text: str) -> None:
        if not self._has_begun:
            await self._begin(send)
        await self._send(send, text)

    def encode(self, event: Any) -> str:
        """An event as text."""
        return _data(event)

    async def _begin(self, send: Send) -> None:
        self._has_begun = True
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)

    async def _send(self, send: Send, text: str) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def error_event(error: Exception) -> str:
    """The last event of a stream that failed after its beginning."""
    return _data(error_body(error))


def _data(event: dict[str, Any] | str) -> str:
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return f"data: {text}\n\n"
