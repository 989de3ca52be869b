"""What runs around every endpoint: ids, logs, origins, CORS, bounds of headers and bugs."""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import ForeignOriginError, HeadersTooLargeError
from serve_app.http.errors import to_response
from serve_app.http.origin import Cors, OriginPolicy
from serve_app.http.request_id import RequestIdMiddleware
from serve_app.observe.access import AccessMiddleware
from serve_app.observe.metrics import Metrics

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024  # with path and query


def middlewares(policy: OriginPolicy, metrics: Metrics) -> list[Middleware]:
    """The outermost comes first, so that every response has its id."""
    return [
        Middleware(RequestIdMiddleware),
        Middleware(AccessMiddleware, metrics=metrics),
        Middleware(DoorMiddleware, policy=policy),
        Middleware(Cors, origins=policy.cors_origins),
        Middleware(HeaderBoundMiddleware),
        Middleware(UnexpectedErrorMiddleware),
    ]


class DoorMiddleware:
    """Refuses requests of foreign pages, which may not even read why."""

    def __init__(self, app: ASGIApp, policy: OriginPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._policy.check(Headers(scope=scope))
            except ForeignOriginError as error:
                await to_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class HeaderBoundMiddleware:
    """Refuses requests with too many headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                check_headers(scope)
            except HeadersTooLargeError as error:
                await to_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def check_headers(scope: Scope) -> None:
    """Raises HeadersTooLargeError."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    sizes = [len(name) + len(value) for name, value in headers]
    num_bytes = sum(sizes) + len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if len(sizes) > MAX_HEADERS or num_bytes > MAX_HEADER_BYTES:
        raise HeadersTooLargeError(
            f"at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them are read"
        )


class UnexpectedErrorMiddleware:
    """Answers an error that no handler knows, which is a bug, with a 500 in our form.

    An error after the beginning of the response passes on, and breaks the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watch(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise
            await to_response(error)(scope, receive, send)
