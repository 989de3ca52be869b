"""An ASGI middleware around every request: counts refusals and writes one line a request."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from serve_app.observe.metrics import Metrics
from serve_app.observe.tracing import span
from serve_app.request_context import CURRENT, RequestRecord

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
STATUS = "http.response.status_code"
REJECTED = (408, 429, 503)
# How many requests like this one the proxy has refused with the engine's last refusal.
SHED_HEADER = b"x-moss-shed"
# Asked every second by whoever watches a server.
_QUIET = {"/health", "/livez", "/readyz", "/metrics"}


class AccessMiddleware:
    """Within that which gives the request its id."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        record = RequestRecord(state["request_id"], shed=_num_shed(scope))
        if record.shed:
            self._metrics.note_rejected("queue_full", record.shed)
        state["record"] = record
        token, began, status = CURRENT.set(record), time.monotonic(), 0
        parent, attributes = _traceparent(scope), {"http.request.method": scope["method"]}

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with span("ingress", parent, attributes) as own:
                record.traceparent = own or parent
                try:
                    await self._app(scope, receive, watch)
                finally:
                    attributes |= {"http.route": record.route, STATUS: status}
        finally:
            CURRENT.reset(token)
            self._end(scope, record, status, time.monotonic() - began)

    def _end(
        self, scope: Mapping[str, Any], record: RequestRecord, status: int, seconds: float
    ) -> None:
        if status in REJECTED:
            self._metrics.note_rejected(record.error_code or str(status))
        level = logging.DEBUG if record.route in _QUIET and status < 400 else logging.INFO
        fields = {
            "method": scope["method"],
            "route": record.route,
            "status": status or None,
            "ms": round(seconds * 1000),
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
            "error": record.error_code,
            "shed": record.shed or None,
        }
        logger.log(level, "request", extra={"fields": fields, "record": record})


def _num_shed(scope: Mapping[str, Any]) -> int:
    told = next((value for name, value in scope["headers"] if name == SHED_HEADER), b"")
    return int(told) if told.isdigit() and len(told) < 10 else 0


def _traceparent(scope: Mapping[str, Any]) -> str:
    """The client's, "" if it sends none that is one."""
    for name, value in scope["headers"]:
        if name == b"traceparent" and _TRACEPARENT.fullmatch(value):
            return str(value, "ascii")
    return ""
