"""Streams pass as they come, a draining server ends what it has, and no request is sent twice."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serve_app.front import errors
from serve_app.front.settings import Address, FrontSettings
from tests.serve_app.front.back_end import NUM_EVENTS, BackEnd
from tests.serve_app.front.certificate import write_certificate
from tests.serve_app.front.conftest import SHORT, RunningFront, free_port, run_front
from tests.serve_app.front.test_limits import assert_error
from tests.support.http_server import serving


async def delays(client: httpx.AsyncClient) -> list[float]:
    """How long each event of a stream was on its way, in seconds."""
    found = []
    async with client.stream("POST", "/stream", json={}) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line:
                sent = json.loads(line.removeprefix("data: "))
                found.append(time.monotonic() - sent["at"])
    return found


async def test_events_are_not_held_back(client: httpx.AsyncClient) -> None:
    found = await delays(client)
    assert len(found) == NUM_EVENTS
    assert max(found) < 0.08, "less than the pause between two events"


async def test_a_stream_that_breaks_off_does_so_for_the_client(client: httpx.AsyncClient) -> None:
    """Else it would look whole, and its reader would not come back for the rest."""
    lines = []
    with pytest.raises(httpx.RemoteProtocolError):
        async with client.stream("GET", "/broken") as response:
            async for line in response.aiter_lines():
                lines.append(line)
    assert lines[0] == "data: {}"


async def test_a_client_that_leaves_ends_the_work(
    front: RunningFront, client: httpx.AsyncClient
) -> None:
    task = asyncio.create_task(client.post("/wait", json={}))
    while "/wait" not in front.back_end.seen:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(2):
        while not front.back_end.left:
            await asyncio.sleep(0.01)


async def test_a_server_that_drains_gets_nothing_new(
    front: RunningFront, client: httpx.AsyncClient
) -> None:
    """What it has goes on; when it is back, it is asked again."""
    running = asyncio.create_task(delays(client))
    while "/stream" not in front.back_end.seen:
        await asyncio.sleep(0.01)
    front.back_end.is_ready = False
    async with asyncio.timeout(5):
        while (response := await client.get("/hello")).status_code == 200:
            await asyncio.sleep(0.05)
    assert_error(response, errors.AWAY)
    assert response.headers["retry-after"] == "2"
    assert len(await running) == NUM_EVENTS
    front.back_end.is_ready = True
    async with asyncio.timeout(5):
        while (await client.get("/hello")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_a_front_that_drains_ends_what_it_has(
    front: RunningFront, client: httpx.AsyncClient
) -> None:
    running = asyncio.create_task(delays(client))
    while "/stream" not in front.back_end.seen:
        await asyncio.sleep(0.01)
    front.front.drain()
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await front.connect()
                writer.close()
                await asyncio.sleep(0.05)
            except OSError:
                break
    assert len(await running) == NUM_EVENTS
    async with asyncio.timeout(5):
        while front.front.process.poll() is None:
            await asyncio.sleep(0.05)
    assert front.front.process.returncode == 0


async def test_a_request_is_sent_once(tmp_path: Path) -> None:
    """To a server that takes it, and dies of it: nobody knows what it did."""
    arrived = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /readyz"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            arrived.append(head.split(b" ")[1])
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    behind = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    settings = FrontSettings(Address("127.0.0.1", free_port()), (behind,), limits=SHORT)
    async with server:
        async for running in run_front(tmp_path, BackEnd(), settings):
            async with httpx.AsyncClient(base_url=running.url) as client:
                response = await client.post("/order", json={})
    assert_error(response, errors.NO_ANSWER)
    assert response.headers["x-should-retry"] == "false"
    assert arrived == [b"/order"]


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[RunningFront]:
    back_end = BackEnd()
    certificate = write_certificate(tmp_path)
    async with serving(back_end.app()) as url:
        listen, behind = Address("127.0.0.1", free_port()), Address.parse(url.split("//")[1])
        settings = FrontSettings(listen, (behind,), certificate, limits=SHORT)
        async for running in run_front(tmp_path, back_end, settings):
            yield running


async def test_tls(secure: RunningFront, tmp_path: Path) -> None:
    trusted = ssl.create_default_context(cafile=str(tmp_path / "front.pem"))
    async with httpx.AsyncClient(base_url=secure.url, verify=trusted) as client:
        response = await client.get("/hello")
        assert response.json()["x-forwarded-proto"] == "https"
        assert "max-age" in response.headers["strict-transport-security"]
        assert max(await delays(client)) < 0.08
    async with httpx.AsyncClient(base_url=secure.url) as stranger:
        with pytest.raises(httpx.ConnectError):
            await stranger.get("/hello")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", secure.port, ssl=old)
