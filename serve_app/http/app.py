"""The Starlette application: the table of endpoints, and the check of who calls one."""

import importlib.metadata
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.access.gate import Credentials
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.endpoints import demo
from serve_app.http.errors import EXCEPTION_HANDLERS
from serve_app.http.health import health_routes
from serve_app.http.service import HttpService

ENDPOINTS: tuple[Endpoint, ...] = (*demo.ENDPOINTS,)


def create_http_app(service: HttpService) -> Starlette:
    """An application for any ASGI server and any path prefix."""

    async def version(request: Request) -> Response:
        number = importlib.metadata.version("moss-serve")
        return JSONResponse({"version": number, "model": service.model_name})

    routes = [
        *(Route(e.path, _route(service, e), methods=[e.method]) for e in ENDPOINTS),
        *health_routes(service.health, (service.drain.takes_turns, *service.readiness)),
        Route("/version", version),
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


def _route(service: HttpService, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        principal = await service.gate.principal(Credentials())
        return await endpoint.run(Call(request, service, principal))

    return run
