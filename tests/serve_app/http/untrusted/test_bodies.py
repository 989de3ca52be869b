"""Bodies from strangers, in every dialect, over real connections: a 4xx of our form at once."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.serve_app.http.untrusted.operations import (
    CHAT,
    INFERENCE,
    RAW,
    SESSION,
    TEMPLATES,
    TURN,
    assert_refused,
    filled,
    open_door,
)
from tests.support.site import Site

DEEP = 100_000
# Where a body has a text.
TEXTS = {
    "half a surrogate pair": b'"a\\ud800b"',
    "a pair the wrong way round": b'"\\udc00\\ud800"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "no UTF-8": b'"\xff"',
    "an overlong character": b'"\xc0\xaf"',
    "a control character": b'"\x00"',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * (DEEP // 4) + b"1" + b"}" * (DEEP // 4),
    "lists without an end": b"[" * DEEP,
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, once escaped": b'{"a": 1, "\\u0061": 2}',
    "a key that is half a pair": b'{"\\ud800": 1}',
    "nothing": b"",
}
# Where it has a number.
NUMBERS = {
    name: name.encode()
    for name in ("NaN", "Infinity", "-Infinity", "nan", "1e400", "-1e999", "1e1000000000", "0x10")
} | {
    "beyond 64 bits": b"18446744073709551616",
    "below 64 bits": b"-9223372036854775809",
    "400 digits": b"9" * 400,
    "100,000 digits": b"9" * DEEP,
    "100,000 decimals": b"1." + b"9" * DEEP + b"e400",
    "a zero before": b"01",
    "a plus": b"+1",
}
# Around a whole body.
WRAPS: dict[str, Callable[[bytes], bytes]] = {
    "a key twice": lambda body: b'{"zz": 1, "zz": 2, ' + body[1:],
    "another body behind": lambda body: body + body,
    "half of it": lambda body: body[:-3],
    "a list": lambda body: b"[" + body + b"]",
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "UTF-32": lambda body: body.decode().encode("utf-32"),
    "a byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "comments": lambda body: b"/* */" + body,
    "single quotes": lambda body: body.replace(b'"', b"'"),
    "text of JSON": lambda body: b'"' + body.replace(b'"', b'\\"') + b'"',
    "a form": lambda body: b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" + body,
}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize("operation", TEMPLATES)
async def test_a_body_that_is_no_strict_json(site: Site, operation: str) -> None:
    async with open_door(site) as door:
        for name, text in TEXTS.items():
            response = await door.ask(operation, filled(operation, text=text))
            assert_refused(response, (operation, name), (400,))
        for name, number in NUMBERS.items():
            response = await door.ask(operation, filled(operation, number=number))
            assert_refused(response, (operation, name), (400,))
        for name, wrap in WRAPS.items():
            for headers in ({}, MULTIPART):
                response = await door.ask(operation, wrap(filled(operation)), headers)
                assert_refused(response, (operation, name), (400,))


@pytest.mark.parametrize("operation", TEMPLATES)
async def test_the_same_body_without_them_is_taken(site: Site, operation: str) -> None:
    """Even under another content type, which nobody enforces. Else the test above shows nothing."""
    async with open_door(site) as door:
        for headers in ({}, MULTIPART):
            response = await door.ask(operation, filled(operation), headers)
            assert response.status_code == 200, response.text


@pytest.mark.parametrize("operation", TEMPLATES)
async def test_a_body_that_is_too_large(site: Site, operation: str) -> None:
    async with open_door(site) as door:
        large = filled(operation, text=b'"' + b"a" * 300_000 + b'"')
        assert_refused(await door.ask(operation, large), operation, (413,))


USER = {"role": "user", "content": "a"}
TOOL = {"type": "function", "function": {"name": "f"}}
MANY = [f"stop {i}" for i in range(1000)]
# What is JSON, and more than anybody needs.
UNBOUNDED: list[tuple[str, dict[str, Any]]] = [
    *(
        (path, {**body, **field})
        for path, body in ((CHAT, {"messages": [USER]}), (RAW, {"prompt": "a"}))
        for field in (
            {"n": 10**9},
            {"n": 2**63},
            {"n": 0},
            {"n": -1},
            {"n": 1.5},
            {"n": True},
            {"n": "1"},
            {"best_of": 10**6, "n": 10**6},
            {"stop": MANY},
            {"stop": "a" * 100_000},
            {"stop": [""]},
            {"stop_token_ids": [*range(1000)]},
            {"stop_token_ids": [2**40]},
            {"logit_bias": {str(i): 1 for i in range(10_000)}},
            {"logit_bias": {"-1": 1}},
            {"logit_bias": {"9" * 1000: 1}},
            {"max_tokens": 2**31},
            {"max_tokens": -1},
            {"min_tokens": 2**31},
            {"seed": 2**64},
            {"top_k": 2**31},
            {"temperature": 1e300},
            {"max_time": -1},
        )
    ),
    (CHAT, {"messages": [USER], "top_logprobs": 10**6, "logprobs": True}),
    (CHAT, {"messages": [USER], "plugins": ["a"] * 1000}),
    (CHAT, {"messages": [USER], "tools": [TOOL] * 1000}),
    (CHAT, {"messages": [{**USER, "content": "a" * 100_000}]}),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{}] * 1000}, USER]}),
    (RAW, {"prompt": ["a"] * 1000}),
    (RAW, {"prompt": [[65]] * 1000}),
    (RAW, {"prompt": [2**31 - 1]}),
    (RAW, {"prompt": "a", "logprobs": 10**6}),
    ("/detokenize", {"tokens": [2**40]}),
    ("/detokenize", {"tokens": [-1]}),
    ("/", {"prompt": "a", "max_length": 2**31}),
    ("/", {"prompt": "a", "plugins": ["a"] * 1000}),
    ("/", {"prompt": "a" * 100_000}),
    ("/", {"prompt": "a", "max_length": 1}),
    (INFERENCE, {"request": "a" * 100_000}),
    (INFERENCE, {"request": "a", "plugin": {f"p{i}": True for i in range(1000)}}),
    (INFERENCE, {"request": "a", "context": "a" * 10_000}),
    ("/v1/sessions", {"title": "a" * 10_000}),
    ("/v1/sessions", {"plugins": ["a"] * 1000}),
    ("/v1/sessions", {"defaults": {"max_tokens": 2**31}}),
    (f"{SESSION}/turns", {"user": "a", "stop": MANY}),
    (f"{SESSION}/turns", {"user": "a", "plugins": ["a"] * 1000}),
    (f"{SESSION}/turns", {"user": "a", "n": 10**9}),
    (f"{SESSION}/turns", {"user": "a", "seed": 2**63}),
    (f"{SESSION}/turns", {"user": "a" * 100_000}),
    (f"{SESSION}/turns", {"user": "a", "parent": "a" * 1000}),
    (f"{TURN}/regenerate", {"stop": MANY}),
    ("/v1/login", {"key": "a" * 10_000}),
]


async def test_more_than_anybody_needs(site: Site) -> None:
    async with open_door(site) as door:
        num_requests = len(site.model.requests)
        for path, body in UNBOUNDED:
            response = await door.ask(f"POST {path}", json.dumps(body).encode())
            assert_refused(response, (path, str(body)[:200]), (400, 404))
        assert len(site.model.requests) == num_requests, "the model was asked"
