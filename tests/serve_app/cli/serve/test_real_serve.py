"""A real Serve as `moss serve` starts it, without a model: what clients get when a part dies."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
import psutil
import pytest
from ray import serve

from serve_app.bench.load.server_process import free_port
from serve_app.cli.serve.address import held_address
from serve_app.cli.serve.local_server import APP_NAME, local_server
from serve_app.settings import ServeSettings
from tests.serve_app.cli.serve.slow_app import slow_app
from tests.support.waiting import wait_until

SETTINGS = ServeSettings(model="m", store="redis://unused", tp=1)
RECOVERY_S = 120  # 4 s on an idle machine
FOREVER = "600"


@dataclass
class Running:
    """A server on `port`, and what a client got before the application was deployed."""

    port: int
    early: list[httpx.Response] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def replica(self) -> int:
        return self._get("/pid")

    @contextmanager
    def endless_turns(self) -> Iterator[tuple["Future[httpx.Response]", "Future[str]"]]:
        """A unary and a streamed one, which the replica runs when the block begins."""
        num_arrived = self._get("/arrived")
        has_begun = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            unary = pool.submit(self.post, "/unary", FOREVER)
            stream = pool.submit(self._read_stream, has_begun)
            assert has_begun.wait(RECOVERY_S)
            assert wait_until(lambda: self._get("/arrived") > num_arrived, RECOVERY_S)
            yield unary, stream

    def _read_stream(self, has_begun: threading.Event) -> str:
        with httpx.stream(
            "POST", f"{self.url}/stream", content=FOREVER, timeout=600, trust_env=False
        ) as response:
            chunks = response.iter_text()
            text = next(chunks)
            has_begun.set()
            return text + "".join(chunks)

    def _get(self, path: str) -> int:
        number: int = httpx.get(f"{self.url}{path}", timeout=RECOVERY_S, trust_env=False).json()
        return number

    def post(self, path: str, seconds: str) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", content=seconds, timeout=600, trust_env=False)

    def say(self, line: str) -> None:
        """Asks once when Serve is up and nothing is deployed."""
        if line.startswith("loading"):
            assert wait_until(self._is_listening, RECOVERY_S)
            self.early.append(self.post("/unary", "0"))

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    running = Running(free_port())
    with (
        pytest.MonkeyPatch.context() as patch,
        held_address("127.0.0.1", running.port) as address,
    ):
        patch.setattr("serve_app.app.build_app", lambda settings: slow_app())
        with local_server(SETTINGS, address, running.port, running.say, lambda: None):
            yield running


def is_proxy(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # or a zombie
        return "ProxyActor" in " ".join(process.cmdline())
    return False


def test_before_the_application_is_there_clients_are_told_to_come_back(server: Running) -> None:
    (early,) = server.early
    assert (early.status_code, early.json()["error"]["code"]) == (503, "overloaded")
    assert int(early.headers["Retry-After"]) > 0


def test_a_replica_killed_under_a_request_is_an_error_object(server: Running) -> None:
    victim = server.replica()
    with server.endless_turns() as (unary, stream):
        os.kill(victim, signal.SIGKILL)
        answer, events = unary.result(), stream.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
    assert int(answer.headers["Retry-After"]) > 0
    assert '"code": "engine_error"' in events.removesuffix("\n\n").split("\n\n")[-1]
    assert server.replica() != victim, "a new one serves"


def test_a_killed_proxy_is_replaced_on_a_port_that_nobody_else_can_take(server: Running) -> None:
    (proxy,) = [child for child in psutil.Process().children(recursive=True) if is_proxy(child)]
    proxy.kill()
    proxy.wait(RECOVERY_S)
    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind(("127.0.0.1", server.port))
    assert wait_until(server._is_listening, RECOVERY_S)
    assert server.post("/unary", "0").json() == "done"


def test_a_replica_that_serve_stops_drains_first(server: Running) -> None:
    """Here in a rolling update."""
    old = server.replica()
    with server.endless_turns() as (unary, stream):
        target = serve.RunTarget(slow_app(version=2), name=APP_NAME)
        serve.run_many([target], wait_for_applications_running=False)
        answer, events = unary.result(), stream.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert '"code": "draining"' in events.removesuffix("\n\n").split("\n\n")[-1]
    assert server.replica() != old
