"""What the process knows of the HTTP request that it works for, for logs and traces."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class RequestRecord:
    """Filled in while the request runs. `route` is a pattern, without values.

    `owner` and `uid` are never logged as they are. `traceparent` is that of the request's span,
    "" if there is none. `shed` requests were refused by the proxy before this one.
    """

    id: str
    route: str = ""
    owner: str = ""
    uid: str = ""
    error_code: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    traceparent: str = ""
    shed: int = 0


# Tasks inherit it from those that start them.
CURRENT: ContextVar[RequestRecord | None] = ContextVar("request", default=None)


def current_traceparent() -> str:
    """That of the request that is worked for now, "" if there is none."""
    record = CURRENT.get()
    return "" if record is None else record.traceparent
