"""The page's login over the application: a key for a cookie that no script can read."""

from collections.abc import AsyncIterator

import httpx
import pytest

from serve_app.access.cookies import COOKIE, MAX_AGE_S, new_cookie
from tests.serve_app.access.key_ring import KeyRing, key_ring
from tests.serve_app.http.clients import client_of
from tests.support.site import Site


@pytest.fixture
async def ring(store_url: str) -> AsyncIterator[KeyRing]:
    async with key_ring(store_url) as made:
        yield made


@pytest.fixture
async def page(site: Site, ring: KeyRing) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(site, gate=ring.gate, requires_key=True) as client:
        yield client


async def models(client: httpx.AsyncClient) -> int:
    return (await client.get("/v1/models")).status_code


async def test_a_key_is_traded_for_a_cookie(page: httpx.AsyncClient, ring: KeyRing) -> None:
    assert await models(page) == 401
    secret = await ring.make("ann")
    answer = await page.post("/v1/login", json={"key": secret})
    assert (answer.status_code, answer.json()) == (200, {"owner": "ann"})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=") and secret not in cookie
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes and "secure" not in attributes
    assert await models(page) == 200
    await ring.revoke(secret)
    assert await models(page) == 401


async def test_a_logout_ends_the_cookie_itself(page: httpx.AsyncClient, ring: KeyRing) -> None:
    await page.post("/v1/login", json={"key": await ring.make("ann")})
    kept = page.cookies[COOKIE]
    assert (await page.post("/v1/logout")).status_code == 204
    assert COOKIE not in page.cookies and await models(page) == 401
    page.cookies.set(COOKIE, kept)
    assert await models(page) == 401
    assert (await page.post("/v1/logout")).status_code == 204


@pytest.mark.parametrize("body", [{}, {"key": None}, {"key": ""}, {"key": "moss-wrong"}])
async def test_nothing_else_is_traded(page: httpx.AsyncClient, body: dict[str, str]) -> None:
    answer = await page.post("/v1/login", json=body)
    assert answer.status_code == 401 and "set-cookie" not in answer.headers
    assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_a_key_that_is_no_text_is_refused_and_not_shown(page: httpx.AsyncClient) -> None:
    for key in (12345678, ["moss-secret"], "moss-secret" * 1000):
        answer = await page.post("/v1/login", json={"key": key})
        assert answer.status_code == 400 and "moss-secret" not in answer.text
        assert "12345678" not in answer.text


async def test_behind_tls_the_cookie_is_secure(page: httpx.AsyncClient, ring: KeyRing) -> None:
    body, headers = {"key": await ring.make()}, {"X-Forwarded-Proto": "https"}
    answer = await page.post("/v1/login", json=body, headers=headers)
    assert "secure" in answer.headers["set-cookie"].lower()


async def test_a_foreign_page_cannot_log_in(page: httpx.AsyncClient, ring: KeyRing) -> None:
    body, headers = {"key": await ring.make()}, {"Origin": "https://evil.example"}
    answer = await page.post("/v1/login", json=body, headers=headers)
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


async def test_a_good_cookie_is_renewed_without_the_key(
    page: httpx.AsyncClient, ring: KeyRing
) -> None:
    secret = await ring.make("ann")
    await page.post("/v1/login", json={"key": secret})
    cookie = page.cookies[COOKIE]
    again = await page.post("/v1/login", json={})
    assert (again.status_code, again.json()) == (200, {"owner": "ann"})
    assert f"Max-Age={MAX_AGE_S}" in again.headers["set-cookie"] and page.cookies[COOKIE] == cookie
    wrong = await page.post("/v1/login", json={"key": "moss-wrong"})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
    await ring.revoke(secret)
    ended = await page.post("/v1/login", json={})
    assert ended.status_code == 401 and "set-cookie" not in ended.headers


async def test_without_keys_a_good_cookie_is_renewed(site: Site) -> None:
    async with client_of(site) as page:
        first = await page.post("/v1/login", json={})
        cookie = page.cookies[COOKIE]
        for body in ({}, {"key": "any"}):
            again = await page.post("/v1/login", json=body)
            assert again.json() == first.json() and page.cookies[COOKIE] == cookie
            assert f"Max-Age={MAX_AGE_S}" in again.headers["set-cookie"]
        await page.post("/v1/logout")
        page.cookies.set(COOKIE, cookie)
        other = await page.post("/v1/login", json={})
        assert other.json() != first.json() and cookie not in other.headers["set-cookie"]


async def test_without_keys_each_browser_has_chats_of_its_own(site: Site) -> None:
    async with client_of(site) as ann, client_of(site) as bob:
        owners = [(await each.post("/v1/login", json={})).json()["owner"] for each in (ann, bob)]
        assert len(set(owners)) == 2
        assert (await ann.post("/v1/sessions", json={})).status_code in (200, 201)
        listed = [(await each.get("/v1/sessions")).json()["data"] for each in (ann, bob)]
        assert [len(sessions) for sessions in listed] == [1, 0]


async def test_without_keys_a_logout_ends_the_cookie_itself(site: Site) -> None:
    async with client_of(site) as page:
        await page.post("/v1/login", json={})
        uid = (await page.post("/v1/sessions", json={})).json()["id"]
        kept = page.cookies[COOKIE]
        assert (await page.get(f"/v1/sessions/{uid}")).status_code == 200
        assert (await page.post("/v1/logout")).status_code == 204
        page.cookies.set(COOKIE, kept)
        assert (await page.get(f"/v1/sessions/{uid}")).status_code == 404
        assert (await page.get("/v1/sessions")).json()["data"] == []


async def test_without_keys_a_cookie_that_a_visitor_made_up_is_no_owner(site: Site) -> None:
    async with client_of(site) as visitor, client_of(site) as nobody:
        visitor.cookies.set(COOKIE, new_cookie())
        uid = (await visitor.post("/v1/sessions", json={})).json()["id"]
        assert (await visitor.get("/v1/sessions")).json()["data"] == []
        assert (await nobody.get(f"/v1/sessions/{uid}")).status_code == 200, "as without one"
