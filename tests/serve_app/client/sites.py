"""The real application on a port of loopback, in a thread, and a line to it that can be cut."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from serve_app.http.app import create_http_app
from serve_app.sessions.redis import RedisSessionStore
from tests.support.http_server import serving
from tests.support.site import Site, make_site

TIMEOUT_S = 30
PLUGINS = frozenset({"calculator", "web_search"})
CHUNK = 65536


@dataclass
class Served:
    """A site whose model is a script. `gate` holds replies up from token `held_from` on."""

    site: Site
    url: str
    gate: threading.Event = field(default_factory=threading.Event)
    held_from: int | None = None

    async def wait(self, is_reply: bool, num_tokens: int) -> None:
        while is_reply and self.held_from is not None and num_tokens >= self.held_from:
            if self.gate.is_set():
                return
            await asyncio.sleep(0.005)


@contextmanager
def served(store_url: str) -> Iterator[Served]:
    """A site over the store, for the block."""
    made: list[Served] = []
    has_begun, is_over = threading.Event(), threading.Event()

    async def run() -> None:
        store = RedisSessionStore(store_url)
        site = make_site(store)
        try:
            service = replace(site.service, plugins=PLUGINS)
            async with serving(create_http_app(service)) as url:
                made.append(Served(site, url))
                site.model.wait = made[0].wait
                has_begun.set()
                while not is_over.is_set():
                    await asyncio.sleep(0.01)
                made[0].gate.set()
        finally:
            await site.client.aclose()
            await site.close()
            await store.close()
            has_begun.set()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert has_begun.wait(TIMEOUT_S) and made
        yield made[0]
    finally:
        is_over.set()
        thread.join(TIMEOUT_S)


class Line:
    """A port of loopback that passes connections on to the server at `target`, a request each.

    `cut_after` breaks the next streams of turns after so many bytes of their answers, one each.
    `lose` says by its first bytes which request's answer is lost: the request is sent, and the
    connection closes. `requests` are the beginnings of all of them.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").rpartition(":")
        self._target = host, int(port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.cut_after: list[int] = []
        self.lose: Callable[[bytes], bool] = lambda request: False
        self.requests: list[bytes] = []
        self.num_cuts = 0
        self.is_down = False
        self._callers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.drop()
        self._thread.join(TIMEOUT_S)

    def drop(self) -> None:
        """Breaks all connections."""
        for caller in self._callers:
            with suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)
        self._callers.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                if self.is_down:
                    caller.close()
                    continue
                self._callers.append(caller)
                threading.Thread(target=self._pass, args=(caller,), daemon=True).start()

    def _pass(self, caller: socket.socket) -> None:
        with caller, socket.create_connection(self._target) as server:
            with suppress(OSError):
                self._pass_on(caller, server)
            for end in (caller, server):  # a close alone would wait for those who still read
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, caller: socket.socket, server: socket.socket) -> None:
        request = caller.recv(CHUNK)
        self.requests.append(request)
        server.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
        threading.Thread(target=_copy, args=(caller, server), daemon=True).start()
        if self.lose(request):
            server.recv(1)
            return
        is_turn = b"/turns" in request.split(b"\r\n")[0]
        left = self.cut_after.pop(0) if is_turn and self.cut_after else None
        while chunk := server.recv(CHUNK):
            if left is not None and len(chunk) >= left:
                caller.sendall(chunk[:left])
                self.num_cuts += 1
                return
            left = None if left is None else left - len(chunk)
            caller.sendall(chunk)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(CHUNK):
            target.sendall(chunk)
