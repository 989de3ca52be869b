"""A server that answers turns with a script, for every way in which one can go wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

UID = "0123456789abcdef" * 2


def turn(number: int, reply: str = "") -> dict[str, Any]:
    return {"id": f"{number:032x}", "reply": reply, "user": "", "plugin_calls": []}


def stream(*events: tuple[str, dict[str, Any]], first: int = 0) -> tuple[int, str]:
    """The answer that tells `events`, kinds and data, numbered from `first`."""
    return 200, "".join(
        f"id: {number}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        for number, (kind, data) in enumerate(events, first)
    )


def told(*pieces: str) -> tuple[int, str]:
    """A whole turn whose reply comes in `pieces`."""
    deltas = [("delta", {"text": piece}) for piece in pieces]
    begun = ("turn", {"id": turn(1)["id"], "uid": UID})
    return stream(begun, *deltas, ("done", {"turn": turn(1, "".join(pieces))}))


class ScriptedServer(ThreadingHTTPServer):
    """Answers what has to do with turns with `replies` in order, and makes sessions.

    `bodies` are those of the turns that it was asked for, `paths` all that it was asked for.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: list[tuple[int, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.idempotency_keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        self._note()
        if self.path == "/livez":
            self._answer(200, "")
        elif "/events" in self.path:
            self._answer(*self.server.replies.pop(0))
        else:
            self._answer(404, '{"error": {"message": "no such chat", "code": "session_not_found"}}')

    def do_POST(self) -> None:
        self._note()
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        if self.path.endswith("/sessions"):
            number = sum(path == "POST /v1/sessions" for path in self.server.paths)
            self._answer(200, json.dumps({"id": f"u{number}"}))
            return
        self.server.bodies.append(body)
        self.server.idempotency_keys.append(self.headers["Idempotency-Key"])
        self._answer(*self.server.replies.pop(0))

    def _note(self) -> None:
        self.server.paths.append(f"{self.command} {self.path}")
        self.server.keys.append(self.headers["Authorization"])

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
