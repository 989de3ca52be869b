"""The one table that maps errors to HTTP responses, in the form of OpenAI's error objects.

An error that is not in the table is a bug in the server: it is logged, and the client gets a 500
without details.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from moss_tp.errors import (
    ContextLengthError,
    DeadlineExceededError,
    EngineDeadError,
    InvalidRequestError,
    QueueFullError,
    RequestMemoryError,
)
from serve_app import errors
from serve_app.chat.resume import TurnTakenOverError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HttpError:
    """Status, type, code and, if a retry may help, the seconds to wait before it.

    Without `should_retry` a client's library is told not to send the request again by itself. Both
    may be attributes of an error, which knows better.
    """

    status: int
    type: str
    code: str | None
    retry_after_s: int | None = None
    should_retry: bool = True


_INVALID = "invalid_request_error"
_DENIED = "permission_error"
_UNEXPECTED = HttpError(500, "server_error", "engine_error", 5)
# An entry also covers subclasses that have no entry.
TABLE: dict[type[Exception], HttpError] = {
    InvalidRequestError: HttpError(400, _INVALID, None),
    errors.InvalidFieldError: HttpError(400, _INVALID, "invalid_value"),
    errors.ContentRefusedError: HttpError(400, _INVALID, "content_filter"),
    errors.UnsupportedParameterError: HttpError(400, _INVALID, "unsupported_parameter"),
    ContextLengthError: HttpError(400, _INVALID, "context_length_exceeded"),
    errors.SessionFullError: HttpError(400, _INVALID, "context_length_exceeded"),
    errors.InvalidKeyError: HttpError(401, _INVALID, "invalid_api_key"),
    errors.PermissionDeniedError: HttpError(403, _DENIED, None),
    errors.ForeignOriginError: HttpError(403, _DENIED, "foreign_origin"),
    errors.PathNotFoundError: HttpError(404, _INVALID, None),
    errors.ModelNotFoundError: HttpError(404, _INVALID, "model_not_found"),
    errors.SessionNotFoundError: HttpError(404, _INVALID, "session_not_found"),
    errors.TurnNotFoundError: HttpError(404, _INVALID, "turn_not_found"),
    errors.ImageNotFoundError: HttpError(404, _INVALID, "image_not_found"),
    DeadlineExceededError: HttpError(408, "timeout_error", "deadline_exceeded", should_retry=False),
    errors.BodyTimeoutError: HttpError(408, "timeout_error", "body_timeout", should_retry=False),
    errors.SessionBusyError: HttpError(409, "conflict_error", "session_busy", 1),
    TurnTakenOverError: HttpError(409, "conflict_error", "turn_taken_over", 1),
    errors.IdempotencyInProgressError: HttpError(
        409, "conflict_error", "idempotency_in_progress", 1
    ),
    errors.TurnCancelledError: HttpError(
        409, "conflict_error", "turn_cancelled", should_retry=False
    ),
    errors.BodyTooLargeError: HttpError(413, _INVALID, None),
    errors.IdempotencyMismatchError: HttpError(422, _INVALID, "idempotency_mismatch"),
    QueueFullError: HttpError(429, "rate_limit_error", "queue_full", 1),
    errors.RateLimitError: HttpError(429, "rate_limit_error", "rate_limit_exceeded", 1),
    errors.HeadersTooLargeError: HttpError(431, _INVALID, None),
    EngineDeadError: HttpError(500, "server_error", "engine_error", 5),
    errors.NotReadyError: HttpError(503, "server_error", "overloaded", 2),
    errors.DrainingError: HttpError(503, "server_error", "draining", 5),
    RequestMemoryError: HttpError(503, "server_error", "out_of_memory", 5),
    errors.StoreUnavailableError: HttpError(503, "server_error", "store_unavailable", 1),
    errors.TurnNotStoredError: HttpError(503, "server_error", "turn_not_stored", 1),
}


def find(error: Exception) -> HttpError:
    """The entry for `error`: that of its class, or of the nearest base class with one."""
    entries = (TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    return next(entries, _UNEXPECTED)


def error_body(error: Exception) -> dict[str, Any]:
    """`{"error": …}`: the body of a response, or the last event of a stream that had begun."""
    entry = find(error)
    if entry is _UNEXPECTED:
        logger.error("unexpected error", exc_info=error)
    message = "internal error" if entry is _UNEXPECTED else str(error)
    param = error.param if isinstance(error, errors.InvalidFieldError) else None
    return _body(message, entry.type, param, entry.code)


def told_response(body: Mapping[str, Any]) -> Response:
    """The response for an error of which only what was told is known, as `error_body` wrote it.

    Clients are told not to send the request again: who failed may have sent a call with effects.
    """
    error = Exception()
    errors.forbid_retry(error)
    told = body["error"]["type"], body["error"]["code"]
    entries = (entry for entry in TABLE.values() if (entry.type, entry.code) == told)
    return _ErrorResponse(body, error, next(entries, _UNEXPECTED))


def to_response(error: Exception) -> Response:
    """The response to a request that failed before its response began."""
    entry = find(error)
    return _ErrorResponse(error_body(error), error, entry)


def note_error(scope: Scope, entry: HttpError) -> None:
    """For the log and the metrics of the request."""
    if (record := scope.get("state", {}).get("record")) is not None:
        record.error_code = entry.code or entry.type


class _ErrorResponse(JSONResponse):
    def __init__(self, body: Mapping[str, Any], error: Exception, entry: HttpError) -> None:
        super().__init__(body, entry.status, _headers(error, entry))
        self._entry = entry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note_error(scope, self._entry)
        await super().__call__(scope, receive, send)


def _headers(error: Exception, entry: HttpError) -> dict[str, str]:
    headers = {}
    retry_s = getattr(error, "retry_after_s", entry.retry_after_s)
    if retry_s is not None:
        headers["Retry-After"] = str(max(1, ceil(retry_s)))
    if not getattr(error, "should_retry", entry.should_retry):
        headers["X-Should-Retry"] = "false"
    if entry.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


async def handle_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for errors in the table."""
    return to_response(error)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler for its own errors, such as an unknown path or method."""
    assert isinstance(error, HTTPException)
    body = _body(error.detail, _INVALID, None, None)
    return JSONResponse(body, error.status_code, error.headers)


async def handle_disconnect(request: Request, error: Exception) -> Response:
    """The client has disconnected and reads no response, but Starlette requires one."""
    return Response(status_code=499)


EXCEPTION_HANDLERS = {
    **dict.fromkeys(TABLE, handle_error),
    HTTPException: handle_http_exception,
    ClientDisconnect: handle_disconnect,
}


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
