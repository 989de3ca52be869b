"""How long the proxy gives the engine's refusal to requests like the one that was refused."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from moss_tp.errors import QueueFullError
from serve_app.errors import RateLimitError
from serve_app.http.errors import to_response
from serve_app.proxy import refusals, shed
from serve_app.proxy.refusals import HOLD_TIMES, MAX_HOLD_S, MIN_HOLD_S
from serve_app.proxy.shed import ShedMiddleware
from tests.serve_app.proxy.proxies import CHAT, FULL, PLAIN, Proxy, refuse


async def test_nothing_is_shed_before_a_refusal(proxy: Proxy) -> None:
    assert [await proxy.ask() for _ in range(3)] == [200] * 3
    assert proxy.engine.told == []


async def test_a_refusal_holds_for_a_moment(proxy: Proxy) -> None:
    await refuse(proxy)
    assert await proxy.ask() == 0
    proxy.clock.now += MIN_HOLD_S - 0.01
    assert await proxy.ask() == 0
    proxy.clock.now += 0.02
    assert await proxy.ask() == 200
    assert len(proxy.engine.bodies) == 2  # what is shed never gets there


@pytest.mark.parametrize(
    ("took_s", "retry_after_s", "hold_s"),
    [
        (0.01, 1.0, MIN_HOLD_S),
        (0.1, 1.0, HOLD_TIMES * 0.1),
        (9.0, 1.0, MAX_HOLD_S),
        (0.01, 2.0, 1.0),  # nothing like it is taken for more than a second
        (0.01, 60.0, MAX_HOLD_S),
    ],
)
async def test_a_slow_or_a_long_refusal_holds_longer(
    proxy: Proxy, took_s: float, retry_after_s: float, hold_s: float
) -> None:
    await refuse(proxy, took_s=took_s, error=QueueFullError(str(FULL), retry_after_s))
    proxy.clock.now += hold_s - 0.001
    assert await proxy.ask() == 0
    assert proxy.retry_after_s == retry_after_s
    proxy.clock.now += 0.002
    assert await proxy.ask() == 200


async def test_a_slow_client_does_not_make_it_hold_longer(proxy: Proxy) -> None:
    proxy.body_s = 5.0
    await refuse(proxy)
    proxy.body_s, proxy.clock.now = 0.0, proxy.clock.now + MIN_HOLD_S + 0.001
    assert await proxy.ask() == 200


async def test_the_retry_of_a_turn_passes(proxy: Proxy) -> None:
    """Its answer may be stored."""
    await refuse(proxy)
    assert await proxy.ask(idempotency_key="k") == 200
    assert await proxy.ask() == 0


async def test_what_asks_for_less_passes(proxy: Proxy) -> None:
    await refuse(proxy, b'{"max_tokens": 100, "max_time": 5.5}')
    assert await proxy.ask(b'{"max_tokens": 100, "max_time": 5.5}') == 0
    assert await proxy.ask(b'{"max_tokens": 200, "max_time": 2.5}') == 0
    assert await proxy.ask(b'{"max_tokens": 100, "max_time": 6.5}') == 200
    assert await proxy.ask(b'{"max_tokens": 099, "max_time": 5.5}') == 200  # no JSON at all
    assert await proxy.ask(b'{"max_tokens":  99, "max_time": 5.5}') == 200
    assert await proxy.ask(b'{"max_tokens": 101}') == 200


async def test_the_easiest_refusal_holds(proxy: Proxy) -> None:
    await refuse(proxy, b'{"max_tokens": 100}')
    await refuse(proxy, b'{"max_tokens": 10 }')
    assert await proxy.ask(b'{"max_tokens": 10 }') == 0
    assert await proxy.ask(b'{"max_tokens": 100}') == 0


@pytest.mark.parametrize("other", [b'{"max_tokens": 100}', b'{"max_time": 9, "n": 2}'])
async def test_another_refusal_does_not_hide_an_easier_one(proxy: Proxy, other: bytes) -> None:
    """As one that was on its way when the easier one came back."""
    release = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        if body == other:
            await release.wait()
        await to_response(FULL)(scope, receive, send)

    proxy.app = ShedMiddleware(slow, proxy.clock)
    late = asyncio.create_task(proxy.ask(other))
    await asyncio.sleep(0)
    assert await proxy.ask(b'{"max_tokens": 10 }') == 429
    release.set()
    assert await late == 429
    assert await proxy.ask(b'{"max_tokens": 10 }') == 0


async def test_paths_are_shut_each_by_itself(proxy: Proxy) -> None:
    await refuse(proxy, path="/v1/sessions/a/turns")
    assert await proxy.ask(path="/v1/sessions/b/turns") == 0
    assert await proxy.ask() == 200
    await refuse(proxy, path="/v1/sessions/a/turns/c/regenerate")
    assert await proxy.ask(path="/v1/sessions/d/turns/e/regenerate") == 0
    assert await proxy.ask(path="/v1/sessions/d/turns/e/cancel") == 200
    assert await proxy.ask(path="/v1/sessions/a/turns", method="GET") == 200


async def test_a_limit_of_a_key_shuts_nothing(proxy: Proxy) -> None:
    proxy.engine.error = RateLimitError("this key may send 1 request a second", 1.0)
    assert [await proxy.ask() for _ in range(2)] == [429, 429]
    assert len(proxy.engine.bodies) == 2


async def test_an_answer_of_serve_in_plain_text_shuts_nothing(proxy: Proxy) -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 429, "headers": []})
        await send({"type": "http.response.body", "body": b"busy"})

    proxy.app = ShedMiddleware(serve, proxy.clock)
    assert [await proxy.ask() for _ in range(2)] == [429, 429]


async def test_a_body_in_parts_passes_whole(proxy: Proxy) -> None:
    await refuse(proxy)
    assert await proxy.ask(PLAIN, parts=3) == 200
    assert proxy.engine.bodies[-1] == PLAIN
    await refuse(proxy, b'{"max_tokens": 5}')
    assert await proxy.ask(b'{"max_tokens": 4}') == 200
    assert proxy.engine.bodies[-1] == b'{"max_tokens": 4}'


async def test_who_answers_before_it_reads_still_gets_the_body(proxy: Proxy) -> None:
    read: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        read.append(await receive())

    await refuse(proxy, b'{"max_tokens": 5}')
    proxy.app._app = application
    assert await proxy.ask(b'{"max_tokens": 4}') == 200  # it was looked at, and asks for less
    assert read[0]["body"] == b'{"max_tokens": 4}'


async def test_a_body_that_does_not_come_is_left_to_the_application(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await refuse(proxy)
    monkeypatch.setattr(shed, "BODY_S", 0.01)
    seen: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["type"])

    def late(messages: list[Message]) -> Callable[[], Awaitable[Message]]:
        async def receive() -> Message:
            await asyncio.sleep(0.05)
            return messages.pop(0)

        return receive

    async def send(message: Message) -> None:
        raise AssertionError(message)

    proxy.app._app = application
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    await proxy.app(scope, late([{"type": "http.disconnect"}]), send)
    assert seen == ["http.disconnect"]


async def test_the_next_that_passes_tells_how_many_were_shed(proxy: Proxy) -> None:
    await refuse(proxy)
    assert [await proxy.ask() for _ in range(3)] == [0, 0, 0]
    proxy.clock.now += MAX_HOLD_S
    assert [await proxy.ask() for _ in range(2)] == [200, 200]
    assert proxy.engine.told == [b"3"]


async def test_what_was_shed_is_told_also_across_refusals(proxy: Proxy) -> None:
    await refuse(proxy)
    assert await proxy.ask() == 0
    proxy.clock.now += MAX_HOLD_S
    await refuse(proxy)
    assert await proxy.ask() == 0
    proxy.clock.now += MAX_HOLD_S
    assert await proxy.ask() == 200
    assert proxy.engine.told == [b"1", b"1"]


async def test_refusals_are_not_kept_for_ever(proxy: Proxy) -> None:
    for number in range(refusals._MAX_KEPT + 1):
        await refuse(proxy, path=f"/{number}")
        proxy.clock.now += 0.1
    assert len(proxy.app._refusals._kept) < 100
    assert len(proxy.app._refusals._last) < 100
