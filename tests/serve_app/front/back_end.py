"""A small real server behind the front, which counts what reaches it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Send

NUM_EVENTS, PAUSE_S = 8, 0.1


@dataclass
class BackEnd:
    """`seen` are the paths of requests, and `left` those whose client went away."""

    is_ready: bool = True
    seen: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    num_body_bytes: int = 0
    pause_s: float = PAUSE_S  # between two events

    def app(self) -> Starlette:
        routes = [
            Route("/readyz", self._readyz),
            Route("/hello", self._hello),
            Route("/echo", self._echo, methods=["POST"]),
            Route("/stream", self._stream, methods=["GET", "POST"]),
            Route("/broken", self._broken),
            Route("/wait", self._wait, methods=["GET", "POST"]),
        ]
        return Starlette(routes=routes)

    async def _readyz(self, request: Request) -> Response:
        return JSONResponse({}, 200 if self.is_ready else 503)

    async def _hello(self, request: Request) -> Response:
        self.seen.append("/hello")
        return JSONResponse(dict(request.headers))

    async def _echo(self, request: Request) -> Response:
        self.seen.append("/echo")
        body = await request.body()
        self.num_body_bytes += len(body)
        return JSONResponse({"length": len(body)})

    async def _stream(self, request: Request) -> Response:
        self.seen.append("/stream")
        num_events = int(request.query_params.get("n", NUM_EVENTS))
        return StreamingResponse(self._events(num_events), media_type="text/event-stream")

    async def _events(self, num_events: int) -> AsyncIterator[str]:
        """Each says when it was sent."""
        for number in range(num_events):
            yield f"data: {json.dumps({'n': number, 'at': time.monotonic()})}\n\n"
            await asyncio.sleep(self.pause_s)

    async def _broken(self, request: Request) -> Response:
        """A stream that breaks off after an event, as one without its last event does."""
        return _Endless([b"data: {}\n\n"], media_type="text/event-stream")

    async def _wait(self, request: Request) -> Response:
        """Until the client goes away."""
        self.seen.append("/wait")
        await request.body()
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
        except ClientDisconnect:
            pass
        self.left.append("/wait")
        return Response()


class _Endless(StreamingResponse):
    """Sends its content, and never that it has ended."""

    async def stream_response(self, send: Send) -> None:
        async def send_but_the_end(message: Message) -> None:
            if message.get("more_body", True):
                await send(message)

        await super().stream_response(send_but_the_end)
