"""What the middleware in the proxy makes of answers that are not the application's."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moss_tp.errors import QueueFullError
from serve_app.http.errors import error_body
from serve_app.http.middleware import MAX_HEADERS
from serve_app.proxy import contract
from serve_app.proxy.contract import ContractMiddleware, middlewares
from tests.support.http_server import serving

MAX_BODY = 1000
PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]
JSON = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
EVENTS = [(b"content-type", b"text/event-stream")]
FRIEND = "https://chat.example"
MANY = {f"x-{number}": "1" for number in range(MAX_HEADERS)}
EVENT = b'data: {"delta": "t"}\n\n'


def start(status: int, headers: Sequence[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


class App:
    """Sends `messages`, then raises `error`; keeps what it received."""

    def __init__(self, *messages: Message, error: Exception | None = None) -> None:
        self.messages = messages
        self.error = error
        self.headers: dict[bytes, bytes] = {}
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = dict(scope["headers"])
        while not self.received or self.received[-1].get("more_body", False):
            self.received.append(await receive())
        if self.received[-1]["type"] == "http.disconnect":
            return
        for message in self.messages:
            await send(message)
            await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error


async def answer_to(app: ASGIApp, path: str = "/", **request: Any) -> httpx.Response:
    async with (
        serving(ContractMiddleware(app, MAX_BODY, {FRIEND})) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        return await client.post(path, **request)


def assert_contract(response: httpx.Response, status: int, code: str | None) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert ("Retry-After" in response.headers) == (status in (429, 500, 503))


@pytest.mark.parametrize(
    ("served", "status", "code"),
    [
        (404, 503, "overloaded"),  # no application yet
        (408, 408, "deadline_exceeded"),
        (429, 429, "queue_full"),
        (500, 500, "engine_error"),
        (503, 503, "overloaded"),
    ],
)
async def test_plain_text_of_serve_becomes_an_error_object(
    served: int, status: int, code: str
) -> None:
    app = App(start(served, PLAIN), body(b"Path '/' not found. Ping http://.../-/routes"))
    assert_contract(await answer_to(app), status, code)


@pytest.mark.parametrize("error", [None, RuntimeError("a bug")])
async def test_no_answer_at_all_is_an_error_object(error: Exception | None) -> None:
    """As when the replica dies under a request that is not streamed."""
    assert_contract(await answer_to(App(error=error)), 500, "engine_error")


async def test_answers_of_the_application_pass() -> None:
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"7")]
    response = await answer_to(App(start(503, headers), body(b'{"error": 1}')))
    assert (response.status_code, response.json()) == (503, {"error": 1})
    assert response.headers["Retry-After"] == "7"
    empty = await answer_to(App(start(503, []), body(b"")), "/health")
    assert (empty.status_code, empty.content) == (503, b"")
    text = await answer_to(App(start(200, PLAIN), body(b"ok")))
    assert text.text == "ok"


@pytest.mark.parametrize("path", ["/-/routes", "/-/healthz"])
async def test_serves_own_endpoints_are_nobodys(path: str) -> None:
    """They would open without a key, and under any name."""
    app = App(start(200, PLAIN), body(b"success"))
    assert_contract(await answer_to(app, path), 404, None)
    assert app.received == []


@pytest.mark.parametrize("error", [None, RuntimeError("a bug")])
async def test_a_cut_stream_gets_a_terminal_event(error: Exception | None) -> None:
    app = App(start(200, EVENTS), body(EVENT, True), body(EVENT, True), error=error)
    response = await answer_to(app)
    *deltas, last = response.text.removesuffix("\n\n").split("\n\n")
    assert deltas == [EVENT.decode().strip()] * 2
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_error"


@pytest.mark.parametrize("path", ["/v1/sessions/f/turns", "/v1/sessions/f/turns/e/events"])
@pytest.mark.parametrize("error", [None, RuntimeError("a bug")])
async def test_a_cut_stream_of_a_live_turn_breaks_off(path: str, error: Exception | None) -> None:
    """The turn goes on: it has no terminal event, and no end that looks like one."""
    app = App(start(200, EVENTS), body(EVENT, True), body(EVENT, True), error=error)
    content = bytearray()
    async with serving(ContractMiddleware(app)) as url, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("POST", url + path) as response:
                async for chunk in response.aiter_bytes():
                    content += chunk
    assert content == EVENT * 2
    whole = App(start(200, EVENTS), body(EVENT, True), body(b""))
    assert (await answer_to(whole, path)).content == EVENT


async def test_a_whole_stream_gets_nothing_more() -> None:
    response = await answer_to(App(start(200, EVENTS), body(EVENT, True), body(b"")))
    assert response.content == EVENT


async def test_a_cut_answer_of_known_length_stays_cut() -> None:
    app = App(start(200, [(b"content-length", b"10")]), body(b"12345", True))
    with pytest.raises(httpx.RemoteProtocolError):
        await answer_to(app)


async def test_a_body_is_bounded_before_the_application_sees_it() -> None:
    app = App(start(200, PLAIN), body(b"ok"))
    assert (await answer_to(app, content=b"a" * MAX_BODY)).text == "ok"
    app = App()
    assert_contract(await answer_to(app, content=b"a" * (MAX_BODY + 1)), 413, None)
    assert app.received == []


async def test_a_body_without_a_declared_length_is_bounded_too() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"a" * 100
            await asyncio.sleep(0)

    app = App()
    assert_contract(await answer_to(app, content=endless()), 413, None)
    assert app.received[-1] == {"type": "http.disconnect"}
    assert sum(len(message.get("body", b"")) for message in app.received) <= MAX_BODY


async def test_headers_for_serves_proxies_do_not_pass() -> None:
    app = App(start(200, PLAIN), body(b"ok"))
    await answer_to(
        app,
        headers=[
            (b"X-Request-Timeout-Seconds", b"0.001"),
            (b"X-Request-Disconnect-Disabled", b"?1"),
            (b"Serve-Multiplexed-Model-Id", b"\xff"),
            (b"X-Moss-Shed", b"1000000"),
            (b"Idempotency-Key", b"k"),
        ],
    )
    assert {b"idempotency-key", b"host"} <= set(app.headers)
    foreign = b"x-request-t", b"serve", b"x-moss"
    assert not [name for name in app.headers if name.startswith(foreign)]


@pytest.mark.parametrize(
    ("shown", "is_taken"), [(b"abc-1.2", True), (b"\xff", False), (b"", False)]
)
async def test_the_id_of_a_request_is_one_for_everybody(shown: bytes, is_taken: bool) -> None:
    """Serve, the application and the client; Serve adds a header of its own."""
    own = [*PLAIN, (b"x-request-id", b"app"), (b"x-request-id", b"serve")]
    app = App(start(200, own), body(b"ok"))
    response = await answer_to(app, headers=[(b"X-Request-Id", shown)])
    (request_id,) = response.headers.get_list("X-Request-Id")
    assert app.headers[b"x-request-id"] == request_id.encode()
    assert (request_id == shown.decode("latin-1")) == is_taken and len(request_id) > 5
    failed = await answer_to(App(error=RuntimeError("a bug")), headers=[(b"X-Request-Id", b"abc")])
    assert failed.headers.get_list("X-Request-Id") == ["abc"]


async def test_too_many_headers_do_not_reach_the_application() -> None:
    app = App()
    assert_contract(await answer_to(app, headers=MANY), 431, None)
    assert app.received == []


@pytest.mark.parametrize("origin", [FRIEND, "https://evil.example"])
async def test_an_allowed_page_may_read_what_the_proxy_answers(origin: str) -> None:
    headers, large = {"Origin": origin}, b"a" * (MAX_BODY + 1)
    cases: list[tuple[int, App, str, dict[str, Any]]] = [
        (404, App(), "/-/routes", {"headers": headers}),
        (413, App(), "/", {"headers": headers, "content": large}),
        (431, App(), "/", {"headers": headers | MANY}),
        (500, App(error=RuntimeError("a bug")), "/", {"headers": headers}),
        (503, App(start(404, PLAIN), body(b"no route")), "/", {"headers": headers}),
    ]
    for status, app, path, request in cases:
        response = await answer_to(app, path, **request)
        assert response.status_code == status
        allowed = response.headers.get("Access-Control-Allow-Origin")
        assert allowed == (FRIEND if origin == FRIEND else None), status
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]


async def ask_raw(app: ASGIApp, request: bytes) -> bytes:
    """What comes until the server closes the connection."""

    def exchange(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(4096), b""))

    async with serving(ContractMiddleware(app)) as url:
        return await asyncio.to_thread(exchange, int(url.rpartition(":")[2]))


async def test_what_is_shed_gets_the_form_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the chain as Serve builds it: each of the list around those before it."""
    yielded: list[bool] = []  # this process is no proxy
    monkeypatch.setattr(contract, "yield_to_the_model", lambda: yielded.append(True))
    refusal = QueueFullError("the request would wait")
    app = App(start(429, JSON), body(json.dumps(error_body(refusal)).encode()))
    chain: ASGIApp = app
    for each in middlewares():
        chain = each.cls(chain, *each.args, **each.kwargs)
    assert yielded == [True]
    async with serving(chain) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for _ in range(2):
            response = await client.post("/", json={}, headers={"X-Request-Id": "mine"})
            assert_contract(response, 429, "queue_full")
            assert response.headers.get_list("X-Request-Id") == ["mine"]
    assert len(app.received) == 1


async def test_an_http_1_0_client_gets_a_stream_without_chunks() -> None:
    app = App(start(200, EVENTS), body(EVENT, True), body(EVENT, True), body(b""))
    shown = await ask_raw(app, b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    head, _, content = shown.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert content == EVENT * 2


async def test_an_http_1_0_client_gets_the_length_that_is_known() -> None:
    app = App(start(200, [(b"content-length", b"2")]), body(b"ok"))
    shown = await ask_raw(app, b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    assert b"content-length: 2" in shown and shown.endswith(b"\r\n\r\nok")


async def test_an_http_1_1_client_still_gets_chunks() -> None:
    app = App(start(200, EVENTS), body(EVENT, True), body(b""))
    request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert b"transfer-encoding: chunked" in (await ask_raw(app, request)).lower()
