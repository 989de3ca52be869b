"""Every operation that reads a body, as a template with a text and a number in it; how a test asks
for it over a real connection, and what each refusal must look like."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx

from serve_app.http.app import create_http_app
from serve_app.http.exchange import MAX_BODY_BYTES
from tests.support.http_server import serving
from tests.support.site import Site

TEXT, NUMBER = "@TEXT@", "@NUMBER@"
LIMIT_S = 1.0
NUM_TRIES = 3  # on a busy machine
INFERENCE, CHAT, RAW = "/api/inference", "/v1/chat/completions", "/v1/completions"
SESSION, TURN = "/v1/sessions/{uid}", "/v1/sessions/{uid}/turns/{turn}"

# A field that an operation does not know stands in where it has no text or number of its own.
TEMPLATES = {
    "POST /": '{"prompt": @TEXT@, "temperature": @NUMBER@}',
    f"POST {INFERENCE}": '{"request": @TEXT@, "max_time": @NUMBER@}',
    f"POST {CHAT}": '{"messages": [{"role": "user", "content": @TEXT@}], "top_p": @NUMBER@}',
    f"POST {CHAT} ": '{"messages": [{"role": "user", "content": "a", "x": @TEXT@}],'
    ' "session_id": "@UID@", "logit_bias": {"65": @NUMBER@}}',
    f"POST {RAW}": '{"prompt": @TEXT@, "temperature": @NUMBER@}',
    "POST /tokenize": '{"prompt": @TEXT@, "x": @NUMBER@}',
    "POST /detokenize": '{"tokens": [65], "x": {"y": [@TEXT@, @NUMBER@]}}',
    "POST /v1/login": '{"key": @TEXT@, "x": @NUMBER@}',
    "POST /v1/sessions": '{"title": @TEXT@, "defaults": {"temperature": @NUMBER@}}',
    f"PATCH {SESSION}": '{"title": @TEXT@, "defaults": {"temperature": @NUMBER@}}',
    f"POST {SESSION}/turns": '{"user": @TEXT@, "temperature": @NUMBER@}',
    f"POST {TURN}/regenerate": '{"stop": @TEXT@, "temperature": @NUMBER@}',
    f"POST {TURN}/cancel": '{"x": @TEXT@, "y": @NUMBER@}',
    f"PUT {TURN}/feedback": '{"comment": @TEXT@, "y": @NUMBER@}',
}


@dataclass
class Door:
    """A real server with a chat of one turn, and a real client of it. `known` fills in paths."""

    client: httpx.AsyncClient
    known: Mapping[str, str]

    async def ask(
        self, operation: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Its answer, which comes at once, to `body` with the chat's ids in it."""
        method, path, *_ = operation.split(" ")
        content = body.replace(b"@UID@", self.known["uid"].encode())
        url = path.format(**self.known)
        for _ in range(NUM_TRIES):
            begin = time.monotonic()
            response = await self.client.request(method, url, content=content, headers=headers)
            if time.monotonic() - begin < LIMIT_S:
                return response
        raise AssertionError(f"it takes too long: {operation}: {body[:60]!r}")


@asynccontextmanager
async def open_door(site: Site) -> AsyncIterator[Door]:
    service = replace(site.service, max_body_bytes=MAX_BODY_BYTES)
    async with (
        serving(create_http_app(service)) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client,
    ):
        uid = (await client.post("/", json={"prompt": "hi"})).json()["uid"]
        turn = (await client.get(f"/v1/sessions/{uid}")).json()["turns"][0]["id"]
        yield Door(client, {"uid": uid, "turn": turn})


def filled(operation: str, text: bytes = b'"a"', number: bytes = b"1") -> bytes:
    """The body of `operation` with that text and number, in JSON's words or in others."""
    template = TEMPLATES[operation].encode()
    return template.replace(TEXT.encode(), text).replace(NUMBER.encode(), number)


def assert_refused(response: httpx.Response, what: object, statuses: tuple[int, ...]) -> None:
    """A refusal in the contract's form, which is no echo of what was sent."""
    assert response.status_code in statuses, (what, response.status_code, response.text[:300])
    body = json.loads(response.content)
    if "error" in body:
        assert set(body["error"]) == {"message", "type", "param", "code"}, what
    else:  # of the service API
        assert body["code"] == 400 and set(body) <= {"code", "message", "message_type", "detail"}
    assert len(response.content) < 2000, what
