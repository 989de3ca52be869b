"""Who comes in: with keys, with the page's cookie, with the environment's key, and without keys."""

import time
from collections.abc import AsyncIterator

import pytest

from serve_app.access import scripts
from serve_app.access.api_key import make_key
from serve_app.access.cookies import MAX_AGE_S, new_cookie
from serve_app.access.gate import Credentials, Gate
from serve_app.access.key_book import KeyBook
from serve_app.access.key_gate import create_gate
from serve_app.access.principal import ANONYMOUS, Limits
from serve_app.api_secret import digest_of
from serve_app.errors import InvalidKeyError, RateLimitError
from tests.serve_app.store_server import StoreServer

OWN = "the-environment's-key"


@pytest.fixture
async def book(server: StoreServer) -> AsyncIterator[KeyBook]:
    made = KeyBook(server.url)
    yield made
    await made.close()


@pytest.fixture
async def gate(server: StoreServer) -> AsyncIterator[Gate]:
    made = create_gate(server.url, is_required=True, own_digest=digest_of(OWN))
    yield made
    await made.close()


async def test_a_key_says_who_and_what(book: KeyBook, gate: Gate) -> None:
    key, secret = make_key("ann", models=("moss",), plugins=(), limits=Limits(running_turns=1))
    await book.add(key)
    principal = await gate.principal(Credentials(secret))
    assert (principal.owner, principal.key_id) == ("ann", key.id)
    assert (principal.models, principal.plugins) == (frozenset({"moss"}), frozenset())
    assert principal.is_listed and not principal.is_admin
    async with gate.admit(principal, 5) as admission:
        assert admission.num_tokens == 5
        with pytest.raises(RateLimitError):
            async with gate.admit(principal, 5):
                pass


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(),
        Credentials("moss-wrong"),
        Credentials(""),
        Credentials(cookie="page." + "0" * 64),
        Credentials(cookie="nonsense"),
        Credentials("moss-wrong", "page." + "0" * 64),
    ],
)
async def test_nobody_else_comes_in(gate: Gate, credentials: Credentials) -> None:
    with pytest.raises(InvalidKeyError) as refused:
        await gate.principal(credentials)
    assert "wrong" not in str(refused.value) or "wrong or revoked" in str(refused.value)


async def test_a_cookie_is_its_keys_owner_until_the_key_ends(book: KeyBook, gate: Gate) -> None:
    key, secret = make_key("ann")
    await book.add(key)
    cookies = [await gate.login(Credentials(secret)) for _ in range(2)]
    assert len(set(cookies)) == 2 and secret not in "".join(cookies)
    for cookie in cookies:
        assert (await gate.principal(Credentials(cookie=cookie))).key_id == key.id
    await gate.logout(cookies[0])
    await gate.logout("nonsense")
    for wrong in (None, "moss-wrong"):
        with pytest.raises(InvalidKeyError):
            await gate.login(Credentials(wrong))
    assert (await gate.principal(Credentials(cookie=cookies[1]))).owner == "ann"
    await book.revoke(key.id)
    for cookie in cookies:
        with pytest.raises(InvalidKeyError, match="login has ended"):
            await gate.principal(Credentials(cookie=cookie))


async def test_a_wrong_key_is_refused_beside_a_good_cookie(book: KeyBook, gate: Gate) -> None:
    key, secret = make_key("ann")
    await book.add(key)
    cookie = await gate.login(Credentials(secret))
    with pytest.raises(InvalidKeyError):
        await gate.principal(Credentials("moss-wrong", cookie))


async def test_the_environments_key_is_an_admins(gate: Gate) -> None:
    principal = await gate.principal(Credentials(OWN))
    assert (principal.owner, principal.is_admin) == ("default", True)
    cookie = await gate.login(Credentials(OWN))
    assert await gate.principal(Credentials(cookie=cookie)) == principal


async def test_a_cookie_of_an_older_environments_key_has_ended(
    gate: Gate, server: StoreServer
) -> None:
    cookie = await gate.login(Credentials(OWN))
    other = create_gate(server.url, is_required=True, own_digest=digest_of(OWN + "2"))
    with pytest.raises(InvalidKeyError):
        await other.principal(Credentials(cookie=cookie))
    await other.close()


async def test_the_environments_key_needs_no_store() -> None:
    gate = create_gate("redis://localhost:1/0", True, digest_of(OWN))
    assert (await gate.principal(Credentials(OWN))).owner == "default"
    await gate.close()


@pytest.fixture
async def open_gate(server: StoreServer) -> AsyncIterator[Gate]:
    made = create_gate(server.url, is_required=False)
    yield made
    await made.close()


async def test_without_keys_a_cookie_is_an_owner(open_gate: Gate, server: StoreServer) -> None:
    gate = open_gate
    assert await gate.principal(Credentials("any key")) == ANONYMOUS
    first, second = await gate.login(Credentials()), await gate.login(Credentials("any key"))
    ann, bob = [await gate.principal(Credentials(cookie=cookie)) for cookie in (first, second)]
    assert ann.owner != bob.owner and ann.is_listed and ann.owner.startswith("page-")
    assert first.partition(".")[2][:8] not in ann.owner
    assert await gate.principal(Credentials(cookie=first)) == ann
    other = create_gate(server.url, is_required=False)
    assert await other.principal(Credentials(cookie=first)) == ann, "any ingress knows it"
    await other.close()
    async with gate.admit(ann, 7) as admission:
        assert admission.num_tokens == 7


async def test_without_keys_a_cookie_that_nobody_made_is_nobodys(
    open_gate: Gate, gate: Gate
) -> None:
    made, of_a_key = await open_gate.login(Credentials()), await gate.login(Credentials(OWN))
    for wrong in ("", "nonsense", made + "0", made.upper(), new_cookie(), of_a_key):
        assert await open_gate.principal(Credentials(cookie=wrong)) == ANONYMOUS
        await open_gate.logout(wrong)
    assert await open_gate.principal(Credentials(cookie=made)) != ANONYMOUS


async def test_without_keys_a_logout_ends_a_cookie(open_gate: Gate) -> None:
    first, second = await open_gate.login(Credentials()), await open_gate.login(Credentials())
    await open_gate.logout(first)
    assert await open_gate.principal(Credentials(cookie=first)) == ANONYMOUS
    assert await open_gate.principal(Credentials(cookie=second)) != ANONYMOUS


async def test_without_keys_and_a_store_there_are_callers_without_a_cookie() -> None:
    gate = create_gate("redis://localhost:1/0", is_required=False)
    assert await gate.principal(Credentials("any key", "nonsense")) == ANONYMOUS
    await gate.close()


async def test_a_login_without_a_key_renews_a_good_cookie(
    book: KeyBook, gate: Gate, server: StoreServer
) -> None:
    key, secret = make_key("ann")
    await book.add(key)
    cookie = await gate.login(Credentials(secret))
    where = scripts.cookies_of(key.id)
    soon = str(round(time.time() * 1000) + 60_000)
    server.command("ZADD", where, soon, digest_of(cookie))
    server.command("PEXPIRE", where, "60000")
    assert await gate.login(Credentials(cookie=cookie)) == cookie
    week_ms = MAX_AGE_S * 1000
    assert int(str(server.command("PTTL", where))) > week_ms - 60_000
    until_ms = server.command("ZSCORE", where, digest_of(cookie))
    assert isinstance(until_ms, float) and until_ms > time.time() * 1000 + week_ms - 60_000
    server.command("ZADD", where, "1", digest_of(cookie))
    for ended in (cookie, new_cookie(key.id), "nonsense"):
        with pytest.raises(InvalidKeyError, match="login has ended"):
            await gate.login(Credentials(cookie=ended))
    assert server.command("ZCARD", where) == 1, "none was made"


async def test_without_keys_no_other_cookie_is_renewed(open_gate: Gate, gate: Gate) -> None:
    mine, of_a_key = await open_gate.login(Credentials()), await gate.login(Credentials(OWN))
    assert await open_gate.login(Credentials(cookie=mine)) == mine
    await open_gate.logout(mine)
    for other in (mine, of_a_key, new_cookie(), "nonsense"):
        assert await open_gate.login(Credentials(cookie=other)) != other
