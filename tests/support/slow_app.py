"""A Serve application whose answers take as long as a test wants, with no model behind them."""

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.http.drain import Drain
from serve_app.http.exchange import EventStream


@serve.ingress()
class SlowIngress:
    """`GET /pid`, and `POST /unary` and `/stream`, which end after the seconds of their body."""

    def __init__(self) -> None:
        self._drain = Drain()

    async def __serve_build_asgi_app__(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/pid", self._pid),
                Route("/unary", self._unary, methods=["POST"]),
                Route("/stream", self._stream, methods=["POST"]),
            ]
        )

    async def _pid(self, request: Request) -> Response:
        return JSONResponse(os.getpid())

    async def _unary(self, request: Request) -> Response:
        await asyncio.sleep(float(await request.body()))
        return JSONResponse("done")

    async def _stream(self, request: Request) -> Response:
        return EventStream(_events(float(await request.body())), 0.1, self._drain)


async def _events(seconds: float) -> AsyncGenerator[dict[str, Any]]:
    yield {"delta": "t"}
    await asyncio.sleep(seconds)
    yield {"done": True}


def slow_app() -> Application:
    return serve.deployment(name="Slow", max_ongoing_requests=100)(SlowIngress).bind()
