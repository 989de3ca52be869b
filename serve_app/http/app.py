"""The Starlette application: the table of endpoints, and the check of who calls one."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.http.caller import find_caller
from serve_app.http.endpoint import Call, Endpoint
from serve_app.http.endpoints import (
    chat_completions,
    completions,
    demo,
    inference,
    login,
    meta,
    models,
    page,
    plugins,
    sessions,
    tokenize,
    turns,
)
from serve_app.http.errors import EXCEPTION_HANDLERS
from serve_app.http.middleware import middlewares
from serve_app.http.openapi import with_description
from serve_app.http.service import HttpService

ENDPOINTS: tuple[Endpoint, ...] = with_description(
    (
        *meta.ENDPOINTS,
        *demo.ENDPOINTS,
        *login.ENDPOINTS,
        *chat_completions.ENDPOINTS,
        *completions.ENDPOINTS,
        *tokenize.ENDPOINTS,
        *models.ENDPOINTS,
        *plugins.ENDPOINTS,
        *inference.ENDPOINTS,
        *sessions.ENDPOINTS,
        *turns.ENDPOINTS,
        *page.ENDPOINTS,
    )
)


def create_http_app(service: HttpService) -> Starlette:
    """An application for any ASGI server and any path prefix."""
    by_path: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in ENDPOINTS:
        by_path[endpoint.path][endpoint.method] = endpoint
    app = Starlette(
        routes=[
            Route(path, _route(service, by_method), methods=list(by_method))
            for path, by_method in by_path.items()
        ],
        middleware=middlewares(service.origins, service.metrics),
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False  # else a redirect would be the answer, to a client's host
    return app


def _route(
    service: HttpService, by_method: Mapping[str, Endpoint]
) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        endpoint = by_method["GET" if request.method == "HEAD" else request.method]
        request.state.endpoint = endpoint
        record = request.state.record
        record.route = endpoint.path
        principal = await find_caller(request, endpoint.access, service.gate)
        record.owner, record.uid = principal.owner, request.path_params.get("uid", "")
        if endpoint.access != "public" and not endpoint.is_admitted:
            await service.gate.charge(principal)
        return await endpoint.run(Call(request, service, principal))

    return run
