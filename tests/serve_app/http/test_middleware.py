"""What runs around every endpoint: CORS for allowed pages, bounds of headers, ids, errors."""

import re

import pytest

from serve_app.http.middleware import MAX_HEADER_BYTES, MAX_HEADERS
from serve_app.http.origin import OriginPolicy
from tests.serve_app.http.clients import assert_error, client_of
from tests.support.fakes.gates import FakeGate
from tests.support.site import Site

FRIEND = "https://chat.example"


@pytest.mark.parametrize("allowed", [FRIEND, "*"])
async def test_an_allowed_page_reads_the_answers(site: Site, allowed: str) -> None:
    policy = OriginPolicy(cors_origins=frozenset({allowed}))
    headers = {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"}
    async with client_of(site, origins=policy) as client:
        answer = await client.post("/", json={"prompt": "hi"}, headers=headers)
        failed = await client.post("/", json={}, headers=headers)
        many = {f"x-{number}": "1" for number in range(MAX_HEADERS)}
        bounded = await client.post("/", json={}, headers=headers | many)
        for response, status in ((answer, 200), (failed, 400), (bounded, 431)):
            assert response.status_code == status
            assert response.headers["Access-Control-Allow-Origin"] == allowed
            assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
            assert "Access-Control-Allow-Credentials" not in response.headers
        foreign = await client.get("/livez", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == (200 if allowed == "*" else 403)


async def test_an_unexpected_error_is_readable_for_an_allowed_page(site: Site) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        raise RuntimeError("secret")

    site.model.wait = fail
    policy = OriginPolicy(cors_origins=frozenset({FRIEND}))
    async with client_of(site, origins=policy) as client:
        response = await client.post("/", json={"prompt": "hi"}, headers={"Origin": FRIEND})
    assert_error(response, 500, "engine_error")
    assert response.headers["Access-Control-Allow-Origin"] == FRIEND


async def test_a_preflight_needs_no_key(site: Site) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-os,idempotency-key",
    }
    policy = OriginPolicy(cors_origins=frozenset({FRIEND}))
    async with client_of(site, gate=FakeGate(), requires_key=True, origins=policy) as client:
        good = await client.options("/", headers={"Origin": FRIEND, **asked})
        assert good.status_code == 200
        assert good.headers["Access-Control-Allow-Origin"] == FRIEND
        assert "POST" in good.headers["Access-Control-Allow-Methods"]
        for name in asked["Access-Control-Request-Headers"].split(","):
            assert name in good.headers["Access-Control-Allow-Headers"]
        evil = await client.options("/", headers={"Origin": "https://evil.example", **asked})
        assert_error(evil, 403, "foreign_origin")
        asked["Access-Control-Request-Method"] = "TRACE"
        assert_error(
            await client.options("/", headers={"Origin": FRIEND, **asked}), 403, "foreign_origin"
        )


@pytest.mark.parametrize(
    "headers",
    [
        {f"x-{number}": "1" for number in range(MAX_HEADERS)},
        {"x-long": "a" * MAX_HEADER_BYTES},
    ],
)
async def test_headers_are_bounded(site: Site, headers: dict[str, str]) -> None:
    assert_error(await site.client.get("/livez", headers=headers), 431, None)
    path = "/livez?" + "a" * MAX_HEADER_BYTES
    assert_error(await site.client.get(path), 431, None)


@pytest.mark.parametrize("shown", ["abc", "req_01-A.b:c", "a" * 128])
async def test_the_id_of_a_client_is_shown_on_every_answer(site: Site, shown: str) -> None:
    headers = {"X-Request-Id": shown}
    responses = [
        await site.client.post("/", json={"prompt": "hi"}, headers=headers),
        await site.client.post("/", json={"prompt": "hi", "stream": True}, headers=headers),
        await site.client.post("/", json={}, headers=headers),
        await site.client.get("/nowhere", headers=headers),
        await site.client.put("/", headers=headers),
        await site.client.get("/livez", headers={**headers, "Origin": "https://evil.example"}),
    ]
    assert [response.status_code for response in responses] == [200, 200, 400, 404, 405, 403]
    for response in responses:
        assert response.headers.get_list("X-Request-Id") == [shown]


@pytest.mark.parametrize("shown", ["", "a b", "a" * 129, "é", "<script>"])
async def test_another_id_is_replaced(site: Site, shown: str) -> None:
    headers = [(b"X-Request-Id", shown.encode("utf-8"))]
    response = await site.client.get("/livez", headers=headers)
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])


async def test_unknown_paths_and_methods_have_the_form_of_errors(site: Site) -> None:
    assert_error(await site.client.get("/nowhere"), 404, None)
    assert_error(await site.client.get("/livez/"), 404, None)
    refused = await site.client.delete("/livez")
    assert_error(refused, 405, None)
    assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD"}
    assert (await site.client.head("/livez")).status_code == 200
