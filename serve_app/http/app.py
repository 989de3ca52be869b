"""The Starlette application: one route per dialect, and the health endpoints.

A route reads the request, runs the turn and has the dialect encode its events. What a turn is, and
what an error means to a client, is decided elsewhere.
"""

import asyncio
import importlib.metadata
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.api import demo
from serve_app.api.parsing import parse_body, parse_idempotency_key
from serve_app.chat.turn import TurnRunner
from serve_app.http.drain import Drain
from serve_app.http.errors import EXCEPTION_HANDLERS
from serve_app.http.exchange import (
    BODY_TIMEOUT_S,
    MAX_BODY_BYTES,
    EventStream,
    read_body,
    run_until_disconnect,
)
from serve_app.http.health import Check, HealthProbe, health_routes


@dataclass(frozen=True)
class HttpService:
    """What the routes use. `plugins` are the names of those that are deployed.

    `readiness` is what has to be true besides the model's health for a server to be ready.
    """

    runner: TurnRunner
    health: HealthProbe
    model_name: str
    plugins: frozenset[str]
    readiness: tuple[Check, ...] = ()
    drain: Drain = field(default_factory=Drain, kw_only=True)
    max_body_bytes: int = MAX_BODY_BYTES
    body_timeout_s: float = BODY_TIMEOUT_S
    # Proxies close a silent connection, often after 30 or 60 s.
    ping_s: float = 15


def create_http_app(service: HttpService) -> Starlette:
    """An application for any ASGI server and any path prefix."""

    async def demo_chat(request: Request) -> Response:
        service.drain.check()
        key = parse_idempotency_key(request.headers.get("Idempotency-Key"))
        raw_body = await read_body(request, service.max_body_bytes, service.body_timeout_s)
        body = parse_body(raw_body, demo.ChatRequest)
        turn = demo.turn_request(body, key, service.model_name, service.plugins)
        committing = asyncio.Event()
        events = service.runner.run(turn, committing)
        if body.stream:
            stream = demo.encode_stream(events)
            return EventStream(stream, service.ping_s, service.drain, committing)
        work, receive = demo.encode_answer(events), request.receive
        return JSONResponse(await run_until_disconnect(work, receive, service.drain, committing))

    async def version(request: Request) -> Response:
        number = importlib.metadata.version("moss-serve")
        return JSONResponse({"version": number, "model": service.model_name})

    routes = [
        Route("/", demo_chat, methods=["POST"]),
        *health_routes(service.health, (service.drain.takes_turns, *service.readiness)),
        Route("/version", version),
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)
