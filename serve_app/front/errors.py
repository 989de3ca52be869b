"""The front's own answers, in the form that every error of the server has."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class FrontError:
    """An answer of HAProxy itself. What is `unknown` may have reached the server."""

    status: int
    type: str
    code: str | None
    message: str
    retry_after_s: int | None = None
    is_unknown: bool = False

    @property
    def body(self) -> str:
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return json.dumps({"error": error})


_INVALID, _SERVER = "invalid_request_error", "server_error"
BAD_REQUEST = FrontError(
    400, _INVALID, None, "the request is not valid HTTP, or has too many headers"
)
TIMEOUT = FrontError(408, "timeout_error", "body_timeout", "the request did not arrive in time")
TOO_LARGE = FrontError(413, _INVALID, None, "the body is too large")
LONG_URL = FrontError(414, _INVALID, None, "the URL is too long")
LARGE_HEADERS = FrontError(431, _INVALID, None, "there are too many headers, or they are too large")
FAILED = FrontError(500, _SERVER, "engine_error", "the front failed", 5)
NO_ANSWER = FrontError(502, _SERVER, "engine_error", "the server gave no answer", 5, True)
AWAY = FrontError(503, _SERVER, "overloaded", "no server takes requests now", 2)
LATE = FrontError(504, _SERVER, "engine_error", "the answer of the server is late", 5, True)

# Those that HAProxy gives by itself; the rest are in rules.
OF_HAPROXY = (BAD_REQUEST, TIMEOUT, TOO_LARGE, FAILED, NO_ANSWER, AWAY, LATE)
