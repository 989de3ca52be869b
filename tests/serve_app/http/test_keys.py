"""Real keys at the door: what they open in each dialect, and what their limits refuse."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from moss_tp.errors import EngineDeadError
from serve_app.access.principal import Limits
from serve_app.chat.completion import Completer
from tests.serve_app.access.key_ring import KeyRing, key_ring
from tests.serve_app.http.clients import client_of
from tests.support.chat_fakes import CharCodec
from tests.support.site import Site

# What runs the model, in each dialect.
TURNS: dict[str, dict[str, Any]] = {
    "/": {"prompt": "你好"},
    "/api/inference": {"request": "你好"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "你好"}]},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 4},
}
STREAMS = ("/", "/v1/chat/completions", "/v1/completions")


@pytest.fixture
async def ring(store_url: str) -> AsyncIterator[KeyRing]:
    async with key_ring(store_url) as made:
        yield made


@pytest.fixture
async def client(site: Site, ring: KeyRing) -> AsyncIterator[httpx.AsyncClient]:
    completer = Completer(site.model, CharCodec())  # one model in all dialects
    changes = {"gate": ring.gate, "requires_key": True, "completer": completer}
    async with client_of(site, **changes) as made:
        yield made


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("path", TURNS)
async def test_a_key_opens_every_dialect_until_it_is_revoked(
    client: httpx.AsyncClient, ring: KeyRing, path: str
) -> None:
    secret = await ring.make()
    for headers in (bearer(secret), {"apikey": secret}):
        assert (await client.post(path, json=TURNS[path], headers=headers)).status_code == 200
    await ring.revoke(secret)
    for headers in ({}, bearer(secret), {"apikey": secret}, {"apikey": "moss-" + "0" * 64}):
        response = await client.post(path, json=TURNS[path], headers=headers)
        assert response.status_code == 401 and secret not in response.text
        assert "invalid_api_key" in response.text or path == "/api/inference"


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions"])
async def test_a_plugin_of_another_scope_is_refused_by_name_and_off_by_default(
    client: httpx.AsyncClient, ring: KeyRing, site: Site, path: str
) -> None:
    headers = bearer(await ring.make(plugins=()))
    body = {**TURNS[path], "plugins": ["calculator"]}
    assert (await client.post(path, json=body, headers=headers)).status_code == 403
    assert (await client.post(path, json=TURNS[path], headers=headers)).status_code == 200
    off = site.model.prompts[0]
    both = bearer(await ring.make(plugins=("calculator",)))
    assert (await client.post(path, json=body, headers=both)).status_code == 200
    assert off != site.model.prompts[-2], "it says which plugins may run"


@pytest.mark.parametrize("path", TURNS)
async def test_a_model_of_another_scope_is_refused(
    client: httpx.AsyncClient, ring: KeyRing, site: Site, path: str
) -> None:
    headers = bearer(await ring.make(models=("another",)))
    assert (await client.post(path, json=TURNS[path], headers=headers)).status_code == 403
    assert not site.model.requests
    assert (await client.get("/v1/models", headers=headers)).json()["data"] == []


@pytest.mark.parametrize("path", TURNS)
async def test_requests_over_the_limit_are_told_when_to_come_back(
    client: httpx.AsyncClient, ring: KeyRing, path: str
) -> None:
    headers = bearer(await ring.make(limits=Limits(requests_per_s=0.01)))
    assert (await client.post(path, json=TURNS[path], headers=headers)).status_code == 200
    refused = await client.post(path, json=TURNS[path], headers=headers)
    assert error_of(refused) == (429, "rate_limit_exceeded")
    assert 90 <= int(refused.headers["Retry-After"]) <= 100


# What runs no model, and is counted all the same.
OTHERS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/tokenize", {"prompt": "Hi"}),
    ("POST", "/detokenize", {"tokens": [72]}),
    ("POST", "/v1/sessions", {}),
    ("PATCH", f"/v1/sessions/{'0' * 32}", {}),
    ("GET", "/v1/sessions", None),
    ("GET", "/v1/models", None),
    ("POST", f"/v1/sessions/{'0' * 32}/turns/{'0' * 32}/cancel", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), OTHERS)
async def test_every_request_of_a_key_counts(
    client: httpx.AsyncClient, ring: KeyRing, method: str, path: str, body: dict[str, Any] | None
) -> None:
    headers = bearer(await ring.make(limits=Limits(requests_per_s=0.01)))
    first = await client.request(method, path, json=body, headers=headers)
    assert first.status_code in (200, 404)
    refused = await client.request(method, path, json=body, headers=headers)
    assert error_of(refused) == (429, "rate_limit_exceeded")
    assert 90 <= int(refused.headers["Retry-After"]) <= 100
    assert (await client.get("/livez", headers=headers)).status_code == 200, "needs no key"
    turn = await client.post("/", json=TURNS["/"], headers=headers)
    assert turn.status_code == 429, "it is one limit"


async def test_a_request_that_is_no_turn_does_not_run(
    client: httpx.AsyncClient, ring: KeyRing
) -> None:
    headers = bearer(await ring.make(limits=Limits(requests_per_s=100, running_turns=1)))
    for _ in range(3):
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
    assert (await client.post("/", json=TURNS["/"], headers=headers)).status_code == 200


@pytest.mark.parametrize("path", TURNS)
async def test_prompt_and_reply_count_against_the_tokens(
    client: httpx.AsyncClient, ring: KeyRing, path: str
) -> None:
    headers = bearer(await ring.make(limits=Limits(tokens_per_min=3)))
    assert (await client.post(path, json=TURNS[path], headers=headers)).status_code == 200
    assert error_of(await client.post(path, json=TURNS[path], headers=headers))[0] == 429


@pytest.mark.parametrize("path", TURNS)
async def test_tokens_of_a_reply_that_breaks_off_count(
    client: httpx.AsyncClient, ring: KeyRing, site: Site, path: str
) -> None:
    is_raw = path == "/v1/completions"
    headers = bearer(await ring.make(limits=Limits(tokens_per_min=10)))

    async def break_off(is_reply: bool, num_tokens: int) -> None:
        if (is_reply or is_raw) and num_tokens == 9 * is_raw:
            raise EngineDeadError("a replica has died")

    site.model.wait = break_off
    body = {**TURNS[path], **({"max_tokens": 20} if is_raw else {})}
    assert (await client.post(path, json=body, headers=headers)).status_code >= 500
    assert error_of(await client.post(path, json=body, headers=headers))[0] == 429


async def test_a_turn_that_is_asked_for_again_is_charged_once(
    client: httpx.AsyncClient, ring: KeyRing
) -> None:
    path = "/v1/chat/completions"

    async def turn(headers: dict[str, str]) -> Any:
        made = await client.post("/v1/sessions", json={}, headers=headers)
        body = {**TURNS[path], "session_id": made.json()["id"]}
        headers = {**headers, "Idempotency-Key": "again-" + "0" * 20}
        first, second = [await client.post(path, json=body, headers=headers) for _ in range(2)]
        assert first.status_code == second.status_code == 200
        assert first.json()["choices"] == second.json()["choices"]
        return first.json()["usage"]["total_tokens"]

    num_tokens = await turn(bearer(await ring.make()))
    headers = bearer(await ring.make(limits=Limits(tokens_per_min=num_tokens * 3 // 2)))
    assert await turn(headers) == num_tokens
    assert (await client.post(path, json=TURNS[path], headers=headers)).status_code == 200
    assert error_of(await client.post(path, json=TURNS[path], headers=headers))[0] == 429


@pytest.mark.parametrize("path", STREAMS)
async def test_a_running_stream_counts_until_it_ends(
    client: httpx.AsyncClient, ring: KeyRing, site: Site, path: str
) -> None:
    headers = bearer(await ring.make(limits=Limits(running_turns=1)))
    goes_on, has_begun = asyncio.Event(), asyncio.Event()

    async def wait(is_reply: bool, num_tokens: int) -> None:
        has_begun.set()
        await goes_on.wait()

    site.model.wait = wait
    first = asyncio.create_task(
        client.post(path, json={**TURNS[path], "stream": True}, headers=headers)
    )
    async with asyncio.timeout(10):
        await has_begun.wait()
    assert error_of(await client.post(path, json=TURNS[path], headers=headers))[0] == 429
    goes_on.set()
    assert (await first).status_code == 200
    assert (await client.post(path, json=TURNS[path], headers=headers)).status_code == 200


@pytest.mark.parametrize("path", TURNS)
async def test_every_dialect_takes_a_deadline(
    client: httpx.AsyncClient, ring: KeyRing, site: Site, path: str
) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(600)

    site.model.wait, headers = hang, bearer(await ring.make())
    body = {**TURNS[path], "max_time": 0.1}
    async with asyncio.timeout(30):
        response = await client.post(path, json=body, headers=headers)
    assert response.status_code == 408, response.text
    for wrong in (0, -1, "soon"):
        response = await client.post(path, json={**body, "max_time": wrong}, headers=headers)
        assert response.status_code == 400


async def test_an_admins_endpoint_needs_an_admins_key(
    client: httpx.AsyncClient, ring: KeyRing
) -> None:
    assert (await client.get("/stats", headers=bearer(await ring.make()))).status_code == 403
    admin = bearer(await ring.make(is_admin=True))
    assert (await client.get("/stats", headers=admin)).status_code == 200
