"""Keys in real stores: found by their secret, refused once revoked, and never stored themselves."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from moss_tp.errors import ConfigError
from serve_app.access import steps
from serve_app.access.api_key import make_key, pack_key, unpack_key
from serve_app.access.cookie_jar import MAX_COOKIES
from serve_app.access.cookies import new_cookie, page_principal
from serve_app.access.key_book import KeyBook
from serve_app.access.principal import Limits
from serve_app.api_secret import digest_of
from serve_app.errors import StoreUnavailableError
from tests.serve_app.store_server import StoreServer

LIMITS = Limits(2.5, 1000, 3)


@pytest.fixture(params=[0.0, 1.0], ids=["always-asking", "for-a-second"])
async def book(request: pytest.FixtureRequest, server: StoreServer) -> AsyncIterator[KeyBook]:
    server.command("FLUSHALL")
    made = KeyBook(server.url, fresh_s=request.param)
    yield made
    await made.close()


@pytest.fixture
async def other(server: StoreServer) -> AsyncIterator[KeyBook]:
    """That of another ingress, or of `moss keys`."""
    made = KeyBook(server.url)
    yield made
    await made.close()


async def a_second_later(book: KeyBook) -> None:
    """Returns when nothing that `book` has read so far may be taken for true any more."""
    await asyncio.sleep(book._fresh_s + 0.05 if book._fresh_s else 0)


async def test_a_key_is_found_by_its_secret(book: KeyBook) -> None:
    key, secret = make_key("ann", "laptop", ("moss",), ("calculator",), True, LIMITS)
    assert await book.find(secret) is None
    await book.add(key)
    await book.add(key)  # sent again
    await a_second_later(book)
    assert await book.find(secret) == key
    for wrong in ("", "moss-", secret[:-1], secret + "0", key.digest, key.id, "\ud800"):
        assert await book.find(wrong) is None


async def test_a_revoked_key_opens_nothing_within_a_second(book: KeyBook, other: KeyBook) -> None:
    key, secret = make_key("ann")
    await other.add(key)
    assert await book.find(secret) == key
    assert not await other.revoke("unknown")
    assert await other.revoke(key.id)
    assert await other.revoke(key.id)
    await a_second_later(book)
    assert await book.find(secret) is None and await book.find_by_id(key.id) is None


async def test_a_new_key_opens_within_a_second(book: KeyBook, other: KeyBook) -> None:
    assert await book.find("moss-anything") is None
    key, secret = make_key("ann")
    await other.add(key)
    await a_second_later(book)
    assert await book.find(secret) == key


async def test_the_list_says_what_was_used_and_revoked(book: KeyBook) -> None:
    first, secret = make_key("ann")
    await asyncio.sleep(0.002)
    second, _ = make_key("bob", limits=LIMITS)
    for key in (second, first):
        await book.add(key)
    assert await book.find(secret) == first
    await book.revoke(second.id)
    used, revoked = await book.entries()
    assert (used.key, revoked.key) == (first, second)
    now_ms = time.time() * 1000
    assert used.used_ms is not None and abs(used.used_ms - now_ms) < 5000
    assert revoked.revoked_ms is not None and abs(revoked.revoked_ms - now_ms) < 5000
    assert (used.revoked_ms, revoked.used_ms) == (None, None)


async def test_no_secret_is_stored(book: KeyBook, server: StoreServer) -> None:
    key, secret = make_key("ann")
    await book.add(key)
    await book.find(secret)
    cookie = await book.cookies.make(key.id)
    names = server.command("KEYS", "*")
    assert isinstance(names, list) and len(names) == 4
    stored = b"".join(_bytes(server.command("DUMP", name.decode())) for name in names)
    assert digest_of(cookie).encode() in stored, "so it would be seen"
    for hidden in (secret, secret.removeprefix("moss-"), cookie, cookie.partition(".")[2]):
        assert hidden.encode() not in stored


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


async def test_a_cookie_ends_with_its_key_or_by_itself(book: KeyBook) -> None:
    key, _ = make_key("ann")
    await book.add(key)
    cookies = [await book.cookies.make(key.id) for _ in range(3)]
    assert [await book.cookies.key_id_of(cookie) for cookie in cookies] == [key.id] * 3
    await book.cookies.end(cookies[0])
    assert [await book.cookies.key_id_of(cookie) for cookie in cookies] == [None, key.id, key.id]
    await book.revoke(key.id)
    assert [await book.cookies.key_id_of(cookie) for cookie in cookies] == [None] * 3
    for wrong in ("", ".", cookies[1][:-1], f"{key.id}.{'0' * 64}", "a" * 5000):
        assert await book.cookies.key_id_of(wrong) is None
        await book.cookies.end(wrong)


async def test_a_key_has_a_bounded_number_of_cookies(book: KeyBook, server: StoreServer) -> None:
    key, _ = make_key("ann")
    first = await book.cookies.make(key.id)
    for _ in range(0, MAX_COOKIES, 50):  # more at once would wait for long on a busy machine
        await asyncio.gather(*(book.cookies.make(key.id) for _ in range(50)))
    last = await book.cookies.make(key.id)
    assert server.command("ZCARD", f"moss:{{access}}:cookies:{key.id}") == MAX_COOKIES
    assert await book.cookies.key_id_of(first) is None
    assert await book.cookies.key_id_of(last) == key.id


async def test_without_a_store_nobody_is_let_in(
    own_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PATIENCE_S", 3.0)
    monkeypatch.setattr(steps, "_ANSWER_S", 1.0)
    book = KeyBook(own_server.url)
    key, secret = make_key("ann")
    await book.add(key)
    assert await book.find(secret) == key
    with own_server.stopped():
        assert await book.find(secret) == key  # for a second
        await asyncio.sleep(1.1)
        started = time.monotonic()
        asked = [book.find(secret) for _ in range(5)]
        failures = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(failure) for failure in failures] == [StoreUnavailableError] * 5
        assert time.monotonic() - started < 5.9, "they share one failure"
    assert await book.find(secret) == key
    await book.close()


def test_a_key_survives_packing() -> None:
    for key, _ in (make_key("ann"), make_key("ann@x.org", "n", (), ("a", "b"), True, LIMITS)):
        assert unpack_key(pack_key(key)) == key


@pytest.mark.parametrize("owner", ["", "demo", " ann", "a" * 65, "ann\n", "{x}", "-a", "page-0123"])
def test_an_unfit_owner_is_refused(owner: str) -> None:
    with pytest.raises(ConfigError, match="cannot be an owner"):
        make_key(owner)


def test_no_key_leads_to_the_chats_of_a_page() -> None:
    with pytest.raises(ConfigError, match="cannot be an owner"):
        make_key(page_principal(new_cookie()).owner)
    assert make_key("pages")[0].owner == "pages"


def test_secrets_are_random_and_long() -> None:
    secrets = {make_key("ann")[1] for _ in range(100)}
    assert len(secrets) == 100
    assert all(s.startswith("moss-") and len(s) == len("moss-") + 64 for s in secrets)
