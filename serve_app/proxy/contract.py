"""What runs around every request in Serve's proxy: each answer gets the form of the contract.

Serve answers by itself when no application or replica does, in plain text, and leaves a response
without an end when a replica dies. It also obeys headers that are meant for its own proxies, and
reads a body of any size. Serve finds `middlewares` by the name in CALLBACK.
"""

import logging
import re
from collections.abc import Collection, Iterable
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moss_tp.errors import (
    DeadlineExceededError,
    EngineDeadError,
    InvalidRequestError,
    QueueFullError,
)
from serve_app.errors import BodyTooLargeError, NotReadyError, PathNotFoundError
from serve_app.http.errors import to_response
from serve_app.http.exchange import MAX_BODY_BYTES, error_event
from serve_app.http.middleware import check_headers
from serve_app.http.origin import Cors, origins_from_environment
from serve_app.http.request_id import choose_request_id, show_request_id
from serve_app.observe.access import SHED_HEADER
from serve_app.precedence import yield_to_the_model
from serve_app.proxy.shed import ShedMiddleware

logger = logging.getLogger(__name__)

# An environment variable of Serve, and its value.
CALLBACK = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve_app.proxy.contract:middlewares")
# Serve's own endpoints, which know no keys and no origins: they are nobody's here.
SERVE_PATHS = "/-/"
# A client's deadline is a field of its request; whether it has left is not for it to say.
_NOT_OF_CLIENTS = {
    b"x_request_timeout_seconds",
    b"x_request_disconnect_disabled",
    b"serve_multiplexed_model_id",
    b"x_session_id",
    b"x_request_id",
    SHED_HEADER.replace(b"-", b"_"),
}
_LIVE = re.compile(r"/v1/sessions/[^/]+/turns(/|$)")  # below any prefix of an application
_LOST = EngineDeadError("the process that handled the request has died")
# What a plain-text answer of Serve's own means here.
_BY_STATUS: dict[int, Exception] = {
    404: NotReadyError("the server is starting or stopping"),  # no application has a route yet
    408: DeadlineExceededError("the deadline has passed"),
    429: QueueFullError("the server has no room for another request"),
    503: NotReadyError("no replica takes requests now"),
}


def middlewares() -> list[Middleware]:
    """The callback: Serve calls it when a proxy starts."""
    yield_to_the_model()
    contract = Middleware(ContractMiddleware, cors_origins=origins_from_environment())
    # Serve wraps them in this order: the last is outermost.
    return [Middleware(ShedMiddleware), contract]


class ContractMiddleware:
    """Bounds bodies, and completes or replaces what is not an answer of the application.

    Pages of the foreign `cors_origins` may read its answers, as they may read the application's.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int = MAX_BODY_BYTES,
        cors_origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._cors_origins = cors_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = choose_request_id(Headers(scope=scope))
        body = _BoundedBody(receive, self._max_body_bytes)
        answer = _Answer(scope, send, request_id, self._cors_origins)
        try:
            if scope["path"].startswith(SERVE_PATHS):
                raise PathNotFoundError("Not Found")
            check_headers(scope)
            body.check_declared(Headers(scope=scope))
        except InvalidRequestError as error:
            await answer.finish(error)
            return
        try:
            inner = {**scope, "headers": list(_for_the_app(scope["headers"], request_id))}
            await self._app(inner, body.receive, answer.send)
        except QueueFullError as error:
            await answer.finish(error)
            return
        except Exception:
            logger.exception("the proxy failed on a request")
        await answer.finish(body.error if body.is_too_large else _LOST)


def _for_the_app(
    headers: Iterable[tuple[bytes, bytes]], request_id: str
) -> Iterable[tuple[bytes, bytes]]:
    """Those that clients may send; Serve and the application get one id of the request."""
    for name, value in headers:
        if name.lower().replace(b"-", b"_") not in _NOT_OF_CLIENTS:
            yield name, value
    yield b"x-request-id", request_id.encode()


class _BoundedBody:
    """`receive` as it is, until more than `max_bytes` have come; then the client seems gone."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self.error = BodyTooLargeError(f"the body is larger than {max_bytes} bytes")

    @property
    def is_too_large(self) -> bool:
        return self._num_bytes > self._max_bytes

    def check_declared(self, headers: Headers) -> None:
        """Raises BodyTooLargeError if the length that the client declares is too large."""
        length = headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > 18 or int(length) > self._max_bytes):
            raise self.error

    async def receive(self) -> Message:
        message = await self._receive()
        self._num_bytes += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.is_too_large else message


class _Answer:
    """One response: passes the application's on, replaces Serve's own, completes a cut one."""

    def __init__(
        self, scope: Scope, send: Send, request_id: str, cors_origins: Collection[str]
    ) -> None:
        self._scope = scope
        self._cors_origins = cors_origins
        self._request_id = request_id
        self._send = _Unchunked(send) if scope["http_version"] == "1.0" else send
        self._has_begun = self._is_stream = self._is_complete = False

    async def send(self, message: Message) -> None:
        if self._is_complete:
            return  # the body of an answer that was replaced
        if message["type"] == "http.response.start":
            self._has_begun = True
            show_request_id(message, self._request_id)  # Serve has added its own
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            if message["status"] >= 400 and content_type.startswith("text/plain"):
                await self._respond(_BY_STATUS.get(message["status"], _LOST))
                return
            self._is_stream = content_type.startswith("text/event-stream")
        else:
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    async def finish(self, error: Exception) -> None:
        """Responds with `error`, or ends a stream with it, if the response has no end yet.

        A live turn goes on, and its reader can come back for the rest: so its stream gets no end,
        which breaks the connection.
        """
        if not self._has_begun:
            await self._respond(error)
        elif self._is_stream and not self._is_complete and not _LIVE.search(self._scope["path"]):
            last = error_event(error).encode()
            await self.send({"type": "http.response.body", "body": last})

    async def _respond(self, error: Exception) -> None:
        self._is_complete = True

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        response = to_response(error)
        readable = Cors(response, self._cors_origins)
        await readable(self._scope, receive, self._send_own)

    async def _send_own(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            show_request_id(message, self._request_id)
        await self._send(message)


class _Unchunked:
    """`send` for an HTTP/1.0 client, which reads a body of unknown length until the close.

    uvicorn's parser on httptools would send it in chunks, which came with HTTP/1.1; the one on
    h11 knows. uvicorn closes the connection itself.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._cycle: Any = getattr(send, "__self__", None)
        self._is_open_ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            has_length = "content-length" in Headers(raw=message["headers"])
            self._is_open_ended = hasattr(self._cycle, "chunked_encoding") and not has_length
            if self._is_open_ended:
                self._cycle.chunked_encoding = False
        elif self._is_open_ended:
            self._cycle.expected_content_length = len(message.get("body", b""))
        await self._send(message)
