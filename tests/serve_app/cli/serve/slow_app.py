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

from serve_app.deployments.replica_end import drain_when_stopped
from serve_app.http.drain import Drain
from serve_app.http.errors import EXCEPTION_HANDLERS
from serve_app.http.exchange import EventStream, run_until_disconnect

DRAIN_S = 0.1


@serve.ingress()
class SlowIngress:
    """`GET /pid`, and `POST /unary` and `/stream`, which end after the seconds of their body.

    `GET /arrived` is how many `/unary` this replica has begun.
    """

    def __init__(self, version: int) -> None:
        self._drain = Drain()
        self._num_arrived = 0

    async def __serve_build_asgi_app__(self) -> Starlette:
        self._stop = asyncio.create_task(drain_when_stopped(self._drain, DRAIN_S))
        return Starlette(
            routes=[
                Route("/pid", self._pid),
                Route("/arrived", self._arrived),
                Route("/unary", self._unary, methods=["POST"]),
                Route("/stream", self._stream, methods=["POST"]),
            ],
            exception_handlers=EXCEPTION_HANDLERS,
        )

    async def has_served(self) -> bool:
        return True

    async def _pid(self, request: Request) -> Response:
        return JSONResponse(os.getpid())

    async def _arrived(self, request: Request) -> Response:
        return JSONResponse(self._num_arrived)

    async def _unary(self, request: Request) -> Response:
        work = self._work(float(await request.body()))
        return JSONResponse(await run_until_disconnect(work, request.receive, self._drain))

    async def _work(self, seconds: float) -> str:
        self._num_arrived += 1  # and the turn counts as a running one
        return await asyncio.sleep(seconds, "done")

    async def _stream(self, request: Request) -> Response:
        return EventStream(_events(float(await request.body())), 0.1, self._drain)


async def _events(seconds: float) -> AsyncGenerator[dict[str, Any]]:
    yield {"delta": "t"}
    await asyncio.sleep(seconds)
    yield {"done": True}


def slow_app(version: int = 1) -> Application:
    """Another version replaces the replica.

    Serve waits long for a replica that it stops, so that only its drain can end the turns.
    """
    deployment = serve.deployment(
        name="Slow", max_ongoing_requests=100, graceful_shutdown_timeout_s=600
    )
    return deployment(SlowIngress).bind(version)
