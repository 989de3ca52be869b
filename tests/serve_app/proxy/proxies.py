"""A proxy that sheds, before an engine that refuses when it is told to."""

from starlette.types import Message, Receive, Scope, Send

from moss_tp.errors import QueueFullError
from serve_app.http.errors import to_response
from serve_app.observe.access import SHED_HEADER
from serve_app.proxy.shed import ShedMiddleware

CHAT = "/v1/chat/completions"
FULL = QueueFullError("the request would wait", 1.0)
PLAIN = b'{"messages": []}'


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """The application: refuses with `error` while there is one, after `took_s`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.error: Exception | None = None
        self.took_s = 0.0
        self.bodies: list[bytes] = []
        self.told: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.told += [value for name, value in scope["headers"] if name == SHED_HEADER]
        self.clock.now += self.took_s
        if self.error is not None:
            await to_response(self.error)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


class Proxy:
    def __init__(self) -> None:
        self.clock = Clock()
        self.engine = Engine(self.clock)
        self.app = ShedMiddleware(self.engine, self.clock)
        self.body_s = self.retry_after_s = 0.0

    async def ask(
        self,
        body: bytes = PLAIN,
        path: str = CHAT,
        method: str = "POST",
        parts: int = 1,
        caller: str = "ann",
        **headers: str,
    ) -> int:
        """The status; 0 for what is shed. The body comes after `body_s`."""
        size = -(-len(body) // parts) or 1
        pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        incoming: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        ]
        statuses: list[int] = []

        async def receive() -> Message:
            self.clock.now += self.body_s
            return incoming.pop(0)

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        shown = {"authorization": f"Bearer {caller}", **headers}
        raw = [(name.replace("_", "-").encode(), each.encode()) for name, each in shown.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": raw}
        try:
            await self.app(scope, receive, send)
        except QueueFullError as error:
            assert str(FULL) not in str(error), "it names the limit of another request"
            self.retry_after_s = error.retry_after_s
            return 0
        return statuses[0]


async def refuse(
    proxy: Proxy,
    body: bytes = PLAIN,
    path: str = CHAT,
    caller: str = "ann",
    took_s: float = 0.0,
    error: QueueFullError = FULL,
) -> None:
    """The engine refuses this one, and takes the next."""
    proxy.engine.error, proxy.engine.took_s = error, took_s
    assert await proxy.ask(body, path, caller=caller) == 429
    proxy.engine.error, proxy.engine.took_s = None, 0.0
