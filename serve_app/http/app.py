"""The Starlette application: MOSS's demo API and the health endpoints, over one service.

It parses, calls and answers; what a turn is and what an error means is decided elsewhere.
"""

import importlib.metadata
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.api.demo import (
    chat_response,
    parse_chat_request,
    parse_idempotency_key,
    turn_request,
)
from serve_app.chat.generation import ReplyDelta
from serve_app.chat.protocols import HealthProbe
from serve_app.chat.turn import TurnDone, TurnRequest, TurnRunner
from serve_app.http.errors import EXCEPTION_HANDLERS
from serve_app.http.exchange import EventStream, read_body, run_until_disconnect


@dataclass(frozen=True)
class HttpService:
    """What the endpoints serve. `plugins` are the names of those that have a back end."""

    runner: TurnRunner
    health: HealthProbe
    model_name: str
    plugins: frozenset[str]
    max_body_bytes: int = 256 * 1024
    # Proxies cut a connection that is silent, often after 30 or 60 s.
    ping_s: float = 15


def create_http_app(service: HttpService) -> Starlette:
    """An application that can be served by any ASGI server, on any path prefix."""

    async def chat(request: Request) -> Response:
        key = parse_idempotency_key(request.headers.get("Idempotency-Key"))
        body = parse_chat_request(await read_body(request, service.max_body_bytes))
        asked = turn_request(body, key, service.model_name, service.plugins)
        if body.stream:
            return EventStream(_events(service.runner, asked), service.ping_s)
        answer = _answer(service.runner, asked)
        return JSONResponse(await run_until_disconnect(answer, request.receive))

    async def version(request: Request) -> Response:
        number = importlib.metadata.version("moss-serve")
        return JSONResponse({"version": number, "model": service.model_name})

    routes = [
        Route("/", chat, methods=["POST"]),
        Route("/health", _probe(service.health.is_healthy)),
        Route("/livez", _probe(_is_alive)),
        Route("/readyz", _probe(service.health.is_ready)),
        Route("/version", version),
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


async def _events(runner: TurnRunner, asked: TurnRequest) -> AsyncGenerator[dict[str, Any]]:
    """`{"delta": text}` for every piece of the reply, then the answer as without `stream`."""
    async with aclosing(runner.run(asked)) as events:
        async for event in events:
            if isinstance(event, ReplyDelta):
                yield {"delta": event.text}
            else:
                yield chat_response(event)


async def _answer(runner: TurnRunner, asked: TurnRequest) -> dict[str, Any]:
    async with aclosing(runner.run(asked)) as events:
        *_, done = [event async for event in events]
    assert isinstance(done, TurnDone)
    return chat_response(done)


def _probe(is_good: Callable[[], Awaitable[bool]]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that says 200 or 503 and nothing else; a probe that fails is bad news too."""

    async def endpoint(request: Request) -> Response:
        try:
            return Response(status_code=200 if await is_good() else 503)
        except Exception:
            return Response(status_code=503)

    return endpoint


async def _is_alive() -> bool:
    return True
