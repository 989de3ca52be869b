"""The one table from errors to what an HTTP client sees, in the form of `api.md`.

An error that is not in the table is a bug of ours: the client learns nothing of it but the 500.
"""

import logging
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from moss_tp.errors import (
    ContextLengthError,
    DeadlineExceededError,
    EngineDeadError,
    InvalidRequestError,
    QueueFullError,
)
from serve_app import errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HttpError:
    """Status, type, code and, when asking again may help, after how many seconds."""

    status: int
    type: str
    code: str | None
    retry_after_s: int | None = None


_INVALID = "invalid_request_error"
_UNEXPECTED = HttpError(500, "server_error", "engine_error", 5)
# A class stands for its subclasses, unless they have a line of their own.
TABLE: dict[type[Exception], HttpError] = {
    InvalidRequestError: HttpError(400, _INVALID, None),
    errors.InvalidFieldError: HttpError(400, _INVALID, "invalid_value"),
    ContextLengthError: HttpError(400, _INVALID, "context_length_exceeded"),
    errors.SessionFullError: HttpError(400, _INVALID, "context_length_exceeded"),
    errors.ModelNotFoundError: HttpError(404, _INVALID, "model_not_found"),
    DeadlineExceededError: HttpError(408, "timeout_error", "deadline_exceeded"),
    errors.SessionBusyError: HttpError(409, "conflict_error", "session_busy", 1),
    errors.IdempotencyInProgressError: HttpError(
        409, "conflict_error", "idempotency_in_progress", 1
    ),
    errors.BodyTooLargeError: HttpError(413, _INVALID, None),
    errors.IdempotencyMismatchError: HttpError(422, _INVALID, "idempotency_mismatch"),
    QueueFullError: HttpError(429, "rate_limit_error", "queue_full", 1),
    EngineDeadError: HttpError(500, "server_error", "engine_error", 5),
    errors.StoreUnavailableError: HttpError(503, "server_error", "store_unavailable", 1),
    errors.TurnNotStoredError: HttpError(503, "server_error", "turn_not_stored", 1),
}


def find(error: Exception) -> HttpError:
    """The line for `error`: that of its nearest ancestor in the table."""
    lines = (TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    return next(lines, _UNEXPECTED)


def error_body(error: Exception) -> dict[str, Any]:
    """`{"error": …}`; also what a stream says that fails after its first byte."""
    line = find(error)
    if line is _UNEXPECTED:
        logger.error("unexpected error", exc_info=error)
    message = "internal error" if line is _UNEXPECTED else str(error)
    param = error.param if isinstance(error, errors.InvalidFieldError) else None
    return _body(message, line.type, param, line.code)


def to_response(error: Exception) -> Response:
    """The whole response for a request that failed before its first byte."""
    line = find(error)
    retry = line.retry_after_s
    headers = None if retry is None else {"Retry-After": str(retry)}
    return JSONResponse(error_body(error), line.status, headers)


async def handle_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for the errors of the table and for those of nobody."""
    return to_response(error)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, such as no such path or method."""
    assert isinstance(error, HTTPException)
    body = _body(error.detail, _INVALID, None, None)
    return JSONResponse(body, error.status_code, error.headers)


async def handle_disconnect(request: Request, error: Exception) -> Response:
    """Nobody is there to read it; the server wants an answer all the same."""
    return Response(status_code=499)


EXCEPTION_HANDLERS = {
    **dict.fromkeys(TABLE, handle_error),
    Exception: handle_error,
    HTTPException: handle_http_exception,
    ClientDisconnect: handle_disconnect,
}


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
