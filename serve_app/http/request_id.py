"""The id of a request, which its response shows and logs name: the client's, or a new one."""

import re
import secrets
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def choose_request_id(headers: Mapping[str, str]) -> str:
    """The client's id if it can stand in a log and in a header, else a new one."""
    shown = headers.get(HEADER, "")
    return shown if _SANE.fullmatch(shown) else secrets.token_hex(16)


def show_request_id(start: Message, request_id: str) -> None:
    """Sets the header of a response's `start`, in place of any other."""
    headers = MutableHeaders(scope=start)
    headers[HEADER] = request_id


class RequestIdMiddleware:
    """Chooses the id, which `request.state.request_id` is for the rest, and shows it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = choose_request_id(MutableHeaders(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id

        async def show(message: Message) -> None:
            if message["type"] == "http.response.start":
                show_request_id(message, request_id)
            await send(message)

        await self._app(scope, receive, show)
