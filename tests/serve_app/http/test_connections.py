"""Clients that disconnect, stores that die, endless uploads: on real servers."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from moss_tp.errors import EngineDeadError
from serve_app.chat.turn import TurnLimits
from serve_app.http.app import create_http_app
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.store.embedded import EmbeddedStore
from tests.serve_app.store_server import StoreServer
from tests.support.chat_fakes import FakeModel
from tests.support.http_server import serving
from tests.support.site import Site, make_site


async def test_a_stopped_store_is_a_503(tmp_path: Path) -> None:
    server = EmbeddedStore(tmp_path)
    server.start()
    store = RedisSessionStore(
        server.url, StoreSettings(answer_timeout_s=0.3, patience_s=0.6, commit_patience_s=0.6)
    )
    site = make_site(store)

    async def stop_in_reply(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            await asyncio.to_thread(server.stop)

    async with site:
        uid = (await site.post()).json()["uid"]
        site.model.wait = stop_in_reply
        lost = await site.post(uid=uid)
        unavailable = await site.post(uid=uid)
        site.model.wait = FakeModel().wait
        for response in (lost, unavailable):
            assert response.status_code == 503 and "Retry-After" in response.headers
            assert response.json()["error"]["code"] == "store_unavailable"
        server.start()
        back = RedisSessionStore(server.url)
        session = await back.load(uid, "demo")
        assert session is not None and len(session.turns) == 1
        await back.close()
    await store.close()
    server.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_store_that_hangs_is_a_503_within_the_deadline(
    own_server: StoreServer, stream: bool
) -> None:
    """The server is not ready, says so, and recovers by itself."""
    store = RedisSessionStore(own_server.url)
    site = make_site(store)
    async with site:
        uid = (await site.post()).json()["uid"]
        with own_server.stopped():
            start = time.monotonic()
            posts = [site.post(uid=uid, max_time=2, stream=stream) for uid in (uid, None) * 20]
            for response in await asyncio.gather(*posts):
                assert response.status_code == 503 and "Retry-After" in response.headers
                assert response.json()["error"]["code"] == "store_unavailable"
            assert (await site.client.get("/readyz")).status_code == 503
            assert (await site.client.get("/health")).status_code == 200
            assert time.monotonic() - start < 20, "it was 111 s"
        assert (await site.client.get("/readyz")).status_code == 200
        assert (await site.post()).status_code == 200
    await store.close()


async def test_kill_9_of_the_store_keeps_every_acknowledged_turn(tmp_path: Path) -> None:
    """Over HTTP: every turn that a client got is there, in order, after every kill."""
    with EmbeddedStore(tmp_path) as server:
        store = RedisSessionStore(server.url)
        site = make_site(store, TurnLimits(max_model_len=100_000))
        expected: list[list[str]] = []
        uid = None
        async with site:
            for number in range(12):
                if number % 3 == 2:
                    os.kill(server.pid, signal.SIGKILL)
                answer = (await site.post(prompt=f"{number}", uid=uid, max_length=90_000)).json()
                uid = answer["uid"]
                expected.append([f"{number}", f"\n<|MOSS|>: turn {number + 1}"])
                assert answer["history"] == expected
        await store.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("disconnects_in_reply", [False, True])
async def test_a_disconnect_cancels_the_turn(
    site: Site, stream: bool, disconnects_in_reply: bool
) -> None:
    uid = (await site.post()).json()["uid"]
    is_there = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply == disconnects_in_reply and num_tokens == 3:
            is_there.set()
            await asyncio.Event().wait()

    async with serving(create_http_app(site.service)) as url:
        site.model.wait = hang
        async with httpx.AsyncClient(base_url=url) as client:
            body = {"prompt": "lost", "uid": uid, "stream": stream}
            task = asyncio.create_task(client.post("/", json=body))
            await is_there.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(30):
            while site.model.num_running:
                await asyncio.sleep(0.01)
    assert site.model.num_aborted == 1
    site.model.wait = FakeModel().wait
    history = (await site.post(prompt="next", uid=uid)).json()["history"]
    assert [query for query, _ in history] == ["你好", "next"]


async def test_events_arrive_during_generation(site: Site) -> None:
    go_on = asyncio.Event()

    async def wait(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 2:
            await go_on.wait()

    site.model.wait = wait
    async with (
        serving(create_http_app(site.service)) as url,
        httpx.AsyncClient(base_url=url) as client,
        client.stream("POST", "/", json={"prompt": "hi", "stream": True}) as response,
    ):
        lines = response.aiter_lines()
        async with asyncio.timeout(30):
            assert await anext(lines) == 'data: {"delta": "t"}'
        go_on.set()
        rest = [line async for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["status"] == 200


async def test_a_silent_stream_begins_with_pings(site: Site) -> None:
    go_on = asyncio.Event()

    async def wait(is_reply: bool, num_tokens: int) -> None:
        if num_tokens == 2:
            await go_on.wait()
            go_on.clear()

    site.model.wait = wait
    async with (
        serving(create_http_app(replace(site.service, ping_s=0.05))) as url,
        httpx.AsyncClient(base_url=url) as client,
        asyncio.timeout(30),
        client.stream("POST", "/", json={"prompt": "hi", "stream": True}) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.aiter_lines()
        assert [await anext(lines) for _ in range(4)] == [": ping", ""] * 2
        go_on.set()  # the first pass ends, the reply begins
        while (line := await anext(lines)) in (": ping", ""):
            pass
        assert line == 'data: {"delta": "t"}'
        while await anext(lines) != ": ping":
            pass
        go_on.set()
        rest = [line async for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["response"].endswith("turn 1")


async def test_an_error_after_a_ping_is_the_last_event(site: Site) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(0.3)
        raise EngineDeadError("a rank is dead")

    site.model.wait = fail
    async with (
        serving(create_http_app(replace(site.service, ping_s=0.02))) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        response = await client.post("/", json={"prompt": "hi", "stream": True})
    assert response.status_code == 200
    *pings, last = response.text.removesuffix("\n\n").split("\n\n")
    assert set(pings) == {": ping"}
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_error"


async def test_a_disconnect_between_two_pings_cancels_the_turn(site: Site) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(60 if num_tokens == 3 else 0)

    site.model.wait = hang
    async with (
        serving(create_http_app(replace(site.service, ping_s=0.02))) as url,
        httpx.AsyncClient(base_url=url) as client,
        asyncio.timeout(30),
    ):
        async with client.stream("POST", "/", json={"prompt": "hi", "stream": True}) as response:
            lines = response.aiter_lines()
            while not site.model.num_running:
                assert await anext(lines) in (": ping", "")
        while site.model.num_running:
            await asyncio.sleep(0.01)
    assert site.model.num_aborted == 1


async def test_an_oversized_upload_is_refused_early(site: Site) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"a" * 16 * 1024

    async with (
        serving(create_http_app(replace(site.service, max_body_bytes=1024))) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        try:
            response = await client.post("/", content=endless())
        except httpx.WriteError:
            return  # the server responded and closed before the upload ended
        assert response.status_code == 413


async def test_a_body_that_does_not_end_is_refused(site: Site) -> None:
    """Its client holds no slot for longer than a slow network would need."""
    half = b'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"prompt": '
    async with serving(create_http_app(replace(site.service, body_timeout_s=0.2))) as url:
        address = httpx.URL(url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(half)
        async with asyncio.timeout(30):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "body_timeout"
