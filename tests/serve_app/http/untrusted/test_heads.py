"""Paths, queries and headers from strangers, over real connections: a 4xx of our form at once."""

import time

import httpx
import pytest

from serve_app.access.cookies import COOKIE
from tests.serve_app.http.untrusted.operations import LIMIT_S, Door, assert_refused, open_door
from tests.support.site import Site

# As they are sent: half a surrogate pair in UTF-8, no UTF-8, a zero byte, and many of a letter.
ODD = ("%ED%A0%80", "%FF", "%00", "a" * 5000, "../../etc/passwd", "%2e%2e", "NaN", "9" * 400, "💥")
PATHS = (
    "GET /v1/models/{odd}",
    "GET /v1/images/{odd}",
    "GET /v1/sessions/{odd}",
    "PATCH /v1/sessions/{odd}",
    "DELETE /v1/sessions/{odd}",
    "POST /v1/sessions/{odd}/turns",
    "GET /v1/sessions/{uid}/turns/{odd}",
    "GET /v1/sessions/{uid}/turns/{odd}/events",
    "POST /v1/sessions/{uid}/turns/{odd}/regenerate",
    "POST /v1/sessions/{uid}/turns/{odd}/cancel",
    "PUT /v1/sessions/{uid}/turns/{odd}/feedback",
    "POST /v1/sessions/{uid}/turns/{odd}/replay",
    "GET /{odd}",
)
NUMBERS = ("NaN", "1e999", "-1", "1.5", "9" * 400, "9" * 5000, "0x10", "", "٣", "%00", "%ED%A0%80")
# Queries by the path that reads them, each with the number that it takes and one that it does not.
QUERIES = (
    *(f"/v1/sessions?limit={number}" for number in (*NUMBERS, "0", "101")),
    *(f"/v1/sessions?limit=%31&limit={number}" for number in ("1", "2", "NaN")),
    "/v1/sessions?after=" + "a" * 65,
    "/v1/sessions?after=a&after=b",
    *(f"/v1/sessions/{{uid}}?all={value}" for value in ("NaN", "2", "%00", "%ED%A0%80")),
    "/v1/sessions/{uid}?all=true&all=false",
    *(f"/v1/sessions/{{uid}}/turns/{{turn}}/events?after={number}" for number in NUMBERS),
    "/v1/sessions/{uid}/turns/{turn}/events?after=1&after=2",
)
FOLLOW, TURNS = "GET /v1/sessions/{uid}/turns/{turn}/events", "POST /v1/sessions/{uid}/turns"
KEYS = (b"", b"\xff", b"\xed\xa0\x80", b"a b", b"a" * 256, "键".encode())
HEADERS: list[tuple[str, list[tuple[bytes, bytes]]]] = [
    *((FOLLOW, [(b"Last-Event-ID", number.encode())]) for number in NUMBERS),
    (FOLLOW, [(b"Last-Event-ID", b"1"), (b"Last-Event-ID", b"2")]),
    *((path, [(b"Idempotency-Key", key)]) for path in (TURNS, "POST /") for key in KEYS),
    *(
        (path, [(b"Idempotency-Key", b"k" * 20), (b"Idempotency-Key", b"j" * 20)])
        for path in (TURNS, "POST /", "POST /api/inference", "POST /v1/chat/completions")
    ),
]
# What nobody can use, and nobody has to refuse.
HARMLESS: list[tuple[bytes, bytes]] = [
    (b"Authorization", b"Bearer \xff"),
    (b"Authorization", b"\xed\xa0\x80"),
    (b"apikey", b"\xff" * 1000),
    (b"Cookie", f"{COOKIE}=\xff".encode("latin-1")),
    (b"Cookie", f'{COOKIE}="a'.encode()),
    (b"Cookie", b"=;" * 1000),
    (b"Cookie", f"{COOKIE}=page.".encode() + b"0" * 20_000),
    (b"traceparent", b"00-" + b"f" * 32 + b"-\xff-01"),
    (b"X-Forwarded-Proto", b"\xff"),
    (b"X-Forwarded-For", b"a" * 5000),
    (b"Accept", b"*" * 5000),
    (b"Accept-Encoding", b"\xff"),
    (b"X-Request-Id", b"\xff"),
]
BODY = (
    b'{"user": "a", "prompt": "a", "request": "a", "messages": [{"role": "user", "content": "a"}]}'
)


async def ask(
    door: Door, operation: str, headers: list[tuple[bytes, bytes]] | None = None, odd: str = ""
) -> httpx.Response:
    method, path = operation.split(" ", 1)
    content = b'{"user": "a"}' if path.endswith("/turns") else BODY
    if method in ("GET", "DELETE") or "{odd}/" in path or path.endswith("{odd}"):
        content = b'{"user": "a"}' if path.endswith("{odd}/turns") else b""
    begin = time.monotonic()
    url = path.replace("{odd}", odd).format(**door.known)
    response = await door.client.request(method, url, headers=headers, content=content)
    assert time.monotonic() - begin < 3 * LIMIT_S, operation
    return response


@pytest.mark.parametrize("operation", PATHS)
async def test_paths_that_lead_nowhere(site: Site, operation: str) -> None:
    async with open_door(site) as door:
        for odd in ODD:
            response = await ask(door, operation, odd=odd)
            assert_refused(response, (operation, odd[:50]), (400, 404, 405))


async def test_queries_that_say_nothing(site: Site) -> None:
    async with open_door(site) as door:
        for path in QUERIES:
            assert_refused(await ask(door, f"GET {path}"), path[:100], (400,))
        for path in ("/v1/sessions?limit=1&x=NaN&x=2", "/v1/sessions/{uid}?all=true"):
            assert (await ask(door, f"GET {path}")).status_code == 200, path


async def test_headers_that_say_nothing(site: Site) -> None:
    async with open_door(site) as door:
        for operation, headers in HEADERS:
            response = await ask(door, operation, headers)
            assert_refused(response, (operation, headers), (400,))
        for operation in {operation for operation, _ in HEADERS}:
            assert (await ask(door, operation)).status_code == 200, operation


async def test_headers_that_nobody_reads_wrongly(site: Site) -> None:
    """They are as good as none, in every dialect."""
    async with open_door(site) as door:
        for operation in ("POST /", "POST /v1/chat/completions", "GET /v1/sessions", TURNS):
            for header in HARMLESS:
                response = await ask(door, operation, [header])
                assert response.status_code == 200, (operation, header, response.text)
