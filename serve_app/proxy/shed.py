"""Refuses in the proxy, for a moment, what asks no less than a request that was refused just now.

Admission is the engine's, and a refusal by it costs the processor time of a proxy, an ingress and a
replica: about as much as a hundred tokens. Where more is asked than served, the engine would lose
that to what it refuses. So for a few times as long as a refusal took, requests that ask for no less
get the same answer here. Work for seconds waits in the engine, which does not miss them.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moss_tp.errors import QueueFullError
from serve_app.http.errors import TABLE
from serve_app.observe.access import SHED_HEADER
from serve_app.proxy.demand import Demand

MIN_SHUT_S, MAX_SHUT_S = 0.25, 1.0
SHUT_TIMES = 4  # so a fifth of what is refused gets to the engine, however slow the way there is
BODY_S = 1.0  # a body that has not come by then is the application's to wait for
_MAX_PATHS = 64
_NAMED = re.compile(r"/(sessions|turns)/[^/]+")  # a part that names something is like any other


@dataclass
class _Refusal:
    """The last one on a path, and how many were shed since a request passed."""

    demand: Demand
    error: QueueFullError
    until: float
    num_shed: int = 0


class ShedMiddleware:
    """Raises QueueFullError for what it sheds. Of one proxy."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._refusals: dict[str, _Refusal] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        path = _NAMED.sub(r"/\1/*", scope["path"])
        body, answer = _FirstPart(receive), _Watched(send)
        if self._is_shut(path):
            await body.peek()
            self._check(path, body.demand())
        began = self._clock()
        await self._app(self._told(scope, path), body.receive, answer.send)
        if (error := answer.refusal()) is not None and (demand := body.demand()) is not None:
            self._note(path, demand, error, self._clock() - began)

    def _is_shut(self, path: str) -> bool:
        refusal = self._refusals.get(path)
        return refusal is not None and self._clock() < refusal.until

    def _check(self, path: str, demand: Demand | None) -> None:
        refusal = self._refusals.get(path)  # again: a body was waited for
        if demand is None or refusal is None or not self._is_shut(path):
            return
        if demand.is_no_easier(refusal.demand):
            refusal.num_shed += 1
            raise QueueFullError(str(refusal.error), refusal.error.retry_after_s)

    def _note(self, path: str, demand: Demand, error: QueueFullError, took_s: float) -> None:
        """The easiest that was refused tells most."""
        last = self._refusals.get(path)
        if last is not None and self._is_shut(path) and demand.is_no_easier(last.demand):
            return
        if len(self._refusals) >= _MAX_PATHS:
            self._refusals.clear()
        num_shed = 0 if last is None else last.num_shed
        shut_s = max(MIN_SHUT_S, SHUT_TIMES * took_s, error.retry_after_s - 1)  # it is rounded up
        shut_s = min(shut_s, MAX_SHUT_S)
        self._refusals[path] = _Refusal(demand, error, self._clock() + shut_s, num_shed)

    def _told(self, scope: Scope, path: str) -> Scope:
        """`scope` with how many were shed, for the metrics of who handles it."""
        refusal = self._refusals.get(path)
        if refusal is None or not refusal.num_shed:
            return scope
        header = SHED_HEADER, b"%d" % refusal.num_shed
        refusal.num_shed = 0
        return {**scope, "headers": [*scope["headers"], header]}


class _FirstPart:
    """`receive`, with the first part of the body kept: in most requests it is the whole."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._first: Message | None = None
        self._is_ahead = False

    async def peek(self) -> None:
        """Waits for the first part, up to BODY_S."""
        try:
            async with asyncio.timeout(BODY_S):
                self._first = await self._receive()
                self._is_ahead = True
        except TimeoutError:
            pass

    async def receive(self) -> Message:
        if self._is_ahead and self._first is not None:
            self._is_ahead = False
            return self._first
        message = await self._receive()
        if self._first is None:
            self._first = message
        return message

    def demand(self) -> Demand | None:
        """None if the body is not whole, or shows none."""
        first = self._first
        if first is None or first["type"] != "http.request" or first.get("more_body", False):
            return None
        return Demand.of(first.get("body", b""))


class _Watched:
    """`send`, which keeps an answer that may be admission's refusal."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._headers: Headers | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            is_refusal = message["status"] == TABLE[QueueFullError].status
            self._headers = Headers(raw=message["headers"]) if is_refusal else None
        elif self._headers is not None:
            self._body += message.get("body", b"")
        await self._send(message)

    def refusal(self) -> QueueFullError | None:
        """None if it was another answer: the limit of a key has the same status."""
        if self._headers is None:
            return None
        try:
            error: Any = json.loads(self._body)["error"]
            retry_after_s = float(self._headers["retry-after"])
        except (ValueError, KeyError, TypeError):
            return None  # Serve's own, in plain text
        is_ours = error["code"] == TABLE[QueueFullError].code
        return QueueFullError(error["message"], retry_after_s) if is_ours else None
