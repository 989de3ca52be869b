"""What strangers send ends at the front, and costs nobody else anything."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serve_app.front import errors
from serve_app.front.config import render
from serve_app.front.settings import Address, FrontSettings
from tests.serve_app.front.back_end import BackEnd
from tests.serve_app.front.conftest import SHORT, RunningFront, free_port, run_front
from tests.serve_app.front.half_sent import HALF_SENT, NUM_LORIS, half_send
from tests.serve_app.front.watching import nobody_disturbed
from tests.support.http_server import serving

BODY = SHORT.body_bytes


def assert_error(response: httpx.Response, expected: errors.FrontError) -> None:
    assert response.status_code == expected.status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json() == json.loads(expected.body)
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("kind", HALF_SENT)
async def test_200_half_sent_requests_are_closed_and_disturb_nobody(
    front: RunningFront, client: httpx.AsyncClient, kind: str
) -> None:
    async with nobody_disturbed(front, client, f"{NUM_LORIS} times {kind}") as watch:
        closed = await asyncio.gather(*(half_send(front, kind) for _ in range(NUM_LORIS)))
    assert max(seconds for seconds, _ in closed) < 2 * max(SHORT.header_s, SHORT.body_s)
    assert min(seconds for seconds, _ in closed) > 1
    if kind != "nothing":
        assert all(said.startswith(b"HTTP/1.1 408 ") for _, said in closed)
    if "body" in kind or "chunk" in kind:  # before, there is no request that an answer could be of
        assert all(errors.TIMEOUT.body.encode() in said for _, said in closed)
    assert len(watch.waits_s) > 20
    assert "/echo" not in front.back_end.seen


async def test_without_its_bounds_a_front_keeps_half_sent_requests(tmp_path: Path) -> None:
    """And passes them on: else the tests above would show nothing."""
    back_end = BackEnd()
    async with serving(back_end.app()) as url:
        listen, behind = Address("127.0.0.1", free_port()), Address.parse(url.split("//")[1])
        settings = FrontSettings(listen, (behind,), limits=SHORT)
        unbound = "\n".join(
            line
            for line in (*render(settings).splitlines(), "")
            if not ("wait-for-body" in line or "req.body_size" in line or "http-request 2s" in line)
        )
        async for running in run_front(tmp_path, back_end, settings, unbound):
            for kind in ("half a head", "half a body"):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1.5 * SHORT.header_s):
                        await half_send(running, kind)
            async with httpx.AsyncClient(base_url=running.url) as client:
                response = await client.post("/echo", content=_parts(2**20))
            assert response.json() == {"length": 2**20}
    assert back_end.seen.count("/echo") == 2


async def _parts(num_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(num_bytes // 65_536):
        yield b"a" * 65_536


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_64_megabytes(
    front: RunningFront, client: httpx.AsyncClient, is_chunked: bool
) -> None:
    """Refused at once, by what it says or by what comes; nothing of it reaches the server."""
    size = 64 * 2**20
    headers = {} if is_chunked else {"Content-Length": str(size)}
    async with nobody_disturbed(front, client, "64 MB"), httpx.AsyncClient() as stranger:
        began = time.monotonic()
        try:
            url = f"{front.url}/echo"
            response = await stranger.post(url, content=_parts(size), headers=headers)
            assert_error(response, errors.TOO_LARGE)
        except httpx.TransportError:  # it was closed while we were sending
            pass
        assert time.monotonic() - began < 5
    assert front.back_end.num_body_bytes == 0


async def test_the_status_of_a_body_that_is_too_large(front: RunningFront) -> None:
    """To a client that waits with its body, as large uploads do."""
    reader, writer = await front.connect()
    writer.write(
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 67108864\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    said = await reader.read()
    assert said.startswith(b"HTTP/1.1 413 ")
    assert errors.TOO_LARGE.body.encode() in said
    writer.close()


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(("size", "fits"), [(BODY, True), (BODY + 1, False)])
async def test_the_largest_body(
    front: RunningFront, client: httpx.AsyncClient, size: int, fits: bool, is_chunked: bool
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"a" * size

    headers = {} if is_chunked else {"Content-Length": str(size)}
    response = await client.post("/echo", content=content(), headers=headers)
    if fits:
        assert response.json() == {"length": size}
    else:
        assert_error(response, errors.TOO_LARGE)
        assert front.back_end.num_body_bytes == 0


async def test_20000_headers(front: RunningFront, client: httpx.AsyncClient) -> None:
    async with nobody_disturbed(front, client, "20,000 headers"):
        began = time.monotonic()
        reader, writer = await front.connect()
        writer.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n")
        for number in range(20_000):
            writer.write(b"X-%d: a\r\n" % number)
        writer.write(b"\r\n")
        said = await reader.read()
        assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
        writer.close()
        assert time.monotonic() - began < 5
    assert "/stream" not in front.back_end.seen


async def test_headers_within_their_bounds(client: httpx.AsyncClient) -> None:
    many = {f"X-{i}": "a" for i in range(90)}
    assert (await client.get("/hello", headers=many)).status_code == 200
    long = {"X-Long": "a" * (30 * 1024)}
    assert (await client.get("/hello", headers=long)).json()["x-long"] == long["X-Long"]
    more = {f"X-{i}": "a" for i in range(SHORT.num_headers + 1)}
    assert_error(await client.get("/hello", headers=more), errors.LARGE_HEADERS)
    longer = {"X-Long": "a" * (33 * 1024)}
    assert_error(await client.get("/hello", headers=longer), errors.LARGE_HEADERS)
    assert_error(await client.get("/hello?" + "a" * 9000), errors.LONG_URL)


async def test_what_is_no_http(front: RunningFront) -> None:
    reader, writer = await front.connect()
    writer.write(b"HELO example.org\r\n\r\n")
    said = await reader.read()
    assert said.startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_nobody_says_whom_it_speaks_for(client: httpx.AsyncClient) -> None:
    forged = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil", "Forwarded": "for=a"}
    seen = (await client.get("/hello", headers=forged)).json()
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert "forwarded" not in seen
    assert "x-forwarded-host" not in seen
