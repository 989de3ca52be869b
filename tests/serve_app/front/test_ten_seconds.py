"""With the times that a front really has, over TLS: who stays half-way is gone in ten seconds."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import httpx
import pytest

from serve_app.front.settings import Address, FrontSettings, Limits
from tests.serve_app.front.back_end import BackEnd
from tests.serve_app.front.certificate import write_certificate
from tests.serve_app.front.conftest import RunningFront, free_port, run_front
from tests.serve_app.front.half_sent import (
    HALF_A_HELLO,
    HALF_SENT,
    NUM_LORIS,
    half_send,
    half_shake,
    slow_twice,
)
from tests.serve_app.front.watching import nobody_disturbed
from tests.support.http_server import serving

LIMIT_S = 10
LIMITS = Limits()
PAUSE_S = 0.01
Stay = Callable[[], Awaitable[tuple[float, bytes]]]  # seconds until it ends, and what was said


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[RunningFront]:
    """Over TLS, with the default limits."""
    back_end, certificate = BackEnd(), write_certificate(tmp_path)
    async with serving(back_end.app()) as url:
        listen, behind = Address("127.0.0.1", free_port()), Address.parse(url.split("//")[1])
        settings = FrontSettings(listen, (behind,), certificate)
        async for running in run_front(tmp_path, back_end, settings):
            yield running


def any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def all_of(strangers: Sequence[Stay]) -> list[tuple[float, bytes]]:
    """What became of each. Their handshakes are work for this process, so they come in turn."""

    async def come(number: int, stay: Stay) -> tuple[float, bytes]:
        await asyncio.sleep(number * PAUSE_S)
        return await stay()

    return await asyncio.gather(*(come(number, stay) for number, stay in enumerate(strangers)))


async def test_200_connections_that_stay_half_way_are_closed_within_ten_seconds(
    front: RunningFront,
) -> None:
    tls = any_certificate()
    kinds: list[Stay] = [
        *(partial(half_send, front, kind, tls) for kind in HALF_SENT),
        *(partial(half_shake, front, sent) for sent in (b"", HALF_A_HELLO)),
        partial(slow_twice, front, LIMITS.header_s - 0.5, tls),
    ]
    strangers = [kinds[number % len(kinds)] for number in range(NUM_LORIS)]
    async with (
        httpx.AsyncClient(base_url=front.url, verify=False, timeout=30) as client,
        nobody_disturbed(front, client, f"{NUM_LORIS} connections over TLS"),
    ):
        closed = await asyncio.to_thread(asyncio.run, all_of(strangers))
    longest_s = max(seconds for seconds, _ in closed)
    print(f"all of {len(closed)} were closed within {longest_s:.1f} s")
    assert longest_s < LIMIT_S
    assert "/echo" not in front.back_end.seen


async def test_who_waits_for_an_answer_is_not_cut_off(tmp_path: Path) -> None:
    """Neither by the time for handshakes nor by that for requests."""
    back_end, certificate = BackEnd(pause_s=2.5), write_certificate(tmp_path)
    async with serving(back_end.app()) as url:
        listen, behind = Address("127.0.0.1", free_port()), Address.parse(url.split("//")[1])
        limits = Limits(header_s=1, body_s=1, idle_s=1, keep_alive_s=1)
        settings = FrontSettings(listen, (behind,), certificate, limits=limits)
        async for running in run_front(tmp_path, back_end, settings):
            async with httpx.AsyncClient(base_url=running.url, verify=False, timeout=30) as client:
                streamed = await client.post("/stream?n=2", json={})
    assert streamed.text.count("data: ") == 2
