"""Refuses in the proxy, for a moment, what asks no less than a request that was refused just now.

Admission is the engine's, and a refusal by it costs the processor time of a proxy, an ingress and a
replica: about as much as a hundred tokens. Where more is asked than served, the engine would lose
that to what it refuses. So for a few times as long as a refusal took, requests that ask for no less
are refused here. Work for seconds waits in the engine, which does not miss them.

A body does not show all that it asks for: the history of a session is in the store. So a refusal
holds for its caller; for all callers, once another one's has come beside it.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moss_tp.errors import QueueFullError
from serve_app.http.errors import TABLE
from serve_app.observe.access import SHED_HEADER
from serve_app.proxy.demand import Demand
from serve_app.proxy.refusals import Refusal, Refusals

BODY_S = 1.0  # a body that has not come by then is the application's to wait for
_NAMED = re.compile(r"/(sessions|turns)/[^/]+")  # a part that names something is like any other
_MESSAGE = "the server has no room for another request"


class ShedMiddleware:
    """Raises QueueFullError for what it sheds. Of one proxy."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._refusals = Refusals(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        path, caller = _NAMED.sub(r"/\1/*", scope["path"]), _caller(scope)
        body = _FirstPart(receive, self._clock)
        answer = _Watched(send, self._clock, body.forget)
        if self._refusals.hold(path, caller) and not _may_be_stored(scope):
            await body.peek()
            self._check(path, caller, body.demand())
        await self._app(self._with_report(scope, path), body.receive, answer.send)
        if (retry_after_s := answer.refusal()) is not None and (demand := body.demand()):
            took_s = answer.began_at - (body.came_at or answer.began_at)
            self._refusals.note(path, caller, Refusal(demand, retry_after_s, took_s))

    def _check(self, path: str, caller: str, demand: Demand | None) -> None:
        if demand is None:
            return
        for refusal in self._refusals.hold(path, caller):
            if demand.is_no_easier(refusal.demand):
                self._refusals.num_shed[path] += 1
                raise QueueFullError(_MESSAGE, refusal.retry_after_s)

    def _with_report(self, scope: Scope, path: str) -> Scope:
        """`scope` with how many were shed since the last report, for the metrics."""
        if not (num_shed := self._refusals.num_shed.pop(path, 0)):
            return scope
        return {**scope, "headers": [*scope["headers"], (SHED_HEADER, b"%d" % num_shed)]}


def _caller(scope: Scope) -> str:
    """Who shows nothing is known by its address."""
    headers, client = Headers(scope=scope), scope.get("client")
    shown = headers.get("authorization") or headers.get("cookie")
    return shown or (client[0] if client else "")


def _may_be_stored(scope: Scope) -> bool:
    """Whether this may be the retry of a turn, which is answered without the engine."""
    return "idempotency-key" in Headers(scope=scope)


class _FirstPart:
    """`receive`, with the first part of the body kept: in most requests it is the whole."""

    def __init__(self, receive: Receive, clock: Callable[[], float]) -> None:
        self._receive = receive
        self._clock = clock
        self.came_at: float | None = None
        self._first: Message | None = None  # until it is forgotten
        self._ahead: Message | None = None  # until the application receives it

    async def peek(self) -> None:
        """Waits for the first part, up to BODY_S."""
        try:
            async with asyncio.timeout(BODY_S):
                self._ahead = await self._next()
        except TimeoutError:
            pass

    async def receive(self) -> Message:
        if (message := self._ahead) is not None:
            self._ahead = None
            return message
        return await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        if self.came_at is None:
            self._first, self.came_at = message, self._clock()
        return message

    def forget(self) -> None:
        """Nothing will be asked of it: a stream may last longer than its request is worth."""
        self._first = None

    def demand(self) -> Demand | None:
        """None if the body is not whole, or shows none."""
        first = self._first
        if first is None or first["type"] != "http.request" or first.get("more_body", False):
            return None
        return Demand.of(first.get("body", b""))


class _Watched:
    """`send`, which keeps an answer that may be admission's refusal; `is_other` is called for any
    other one."""

    def __init__(
        self, send: Send, clock: Callable[[], float], is_other: Callable[[], None]
    ) -> None:
        self._send = send
        self._is_other = is_other
        self._clock = clock
        self._headers: Headers | None = None
        self._body = b""
        self.began_at = 0.0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began_at = self._clock()
            is_refusal = message["status"] == TABLE[QueueFullError].status
            self._headers = Headers(raw=message["headers"]) if is_refusal else None
            if not is_refusal:
                self._is_other()
        elif self._headers is not None:
            self._body += message.get("body", b"")
        await self._send(message)

    def refusal(self) -> float | None:
        """The seconds of its Retry-After. None if it was another answer: the limit of a key has
        the same status."""
        if self._headers is None:
            return None
        try:
            code: Any = json.loads(self._body)["error"]["code"]
            retry_after_s = float(self._headers["retry-after"])
        except (ValueError, KeyError, TypeError):
            return None  # Serve's own, in plain text
        return retry_after_s if code == TABLE[QueueFullError].code else None
