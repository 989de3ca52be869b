"""The catalogue of chats: lists that are hints, and all chats for an export."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from serve_app.access.principal import ANONYMOUS
from serve_app.errors import SessionNotFoundError, StoreUnavailableError
from serve_app.sessions import index
from serve_app.sessions.catalogue import SessionChanges
from serve_app.sessions.keys import owner_key
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import new_token
from tests.serve_app.sessions.turns import append
from tests.serve_app.store_server import StoreServer


@pytest.fixture
async def catalogue(store_url: str) -> AsyncIterator[RedisSessionCatalogue]:
    client = RedisSessionCatalogue(store_url)
    yield client
    await client.close()


@pytest.fixture
def owner() -> str:
    """The store is not new, so its owner is."""
    return f"ann {new_token()}"


async def test_an_entry_that_leads_nowhere_is_removed(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue, server: StoreServer, owner: str
) -> None:
    """The index is a hint: expired and foreign sessions may be in it."""
    mine, foreign = new_token(), new_token()
    await append(store, mine, owner=owner)
    await append(store, foreign, owner="bob")
    for number in range(7):
        server.command("ZADD", owner_key(owner), str(10**14 + number), new_token())
    server.command("ZADD", owner_key(owner), "1", foreign)
    for limit in (1, 5):
        found = await catalogue.list_sessions(owner, limit)
        assert [line.uid for line in found] == [mine]
    assert server.command("ZRANGE", owner_key(owner), "0", "-1") == [mine.encode()]
    with pytest.raises(SessionNotFoundError):
        await catalogue.list_sessions(owner, 1, foreign)


async def test_only_so_many_chats_are_listed(
    server: StoreServer, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "MAX_LISTED", 3)
    catalogue = RedisSessionCatalogue(server.url)
    uids = [(await catalogue.create(owner, SessionChanges())).uid for _ in range(5)]
    found = await catalogue.list_sessions(owner, 10)
    assert [line.uid for line in found] == uids[:1:-1]
    assert await catalogue.load(uids[0], owner) is not None
    await catalogue.close()


async def test_chats_without_a_key_have_no_index(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue, server: StoreServer
) -> None:
    assert ANONYMOUS.owner in StoreSettings().unlisted_owners and not ANONYMOUS.is_listed
    await append(store, new_token(), owner=ANONYMOUS.owner)
    await catalogue.create(ANONYMOUS.owner, SessionChanges())
    assert server.command("EXISTS", owner_key(ANONYMOUS.owner)) == 0
    assert await catalogue.list_sessions(ANONYMOUS.owner, 10) == []


async def test_the_index_expires_with_the_newest_chat(server: StoreServer, owner: str) -> None:
    catalogue = RedisSessionCatalogue(server.url, StoreSettings(session_ttl_s=0.3))
    await catalogue.create(owner, SessionChanges())
    await asyncio.sleep(0.4)
    assert await catalogue.list_sessions(owner, 10) == []
    assert server.command("EXISTS", owner_key(owner)) == 0
    await catalogue.close()


async def test_all_chats_are_read_once(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue, owner: str
) -> None:
    other = f"bob {new_token()}"
    uids = [new_token() for _ in range(450)]  # more than a scan's step
    for number, uid in enumerate(uids):
        await append(store, uid, owner=(owner, other)[number % 2])
    mine = [session async for session in catalogue.sessions(owner)]
    assert sorted(session.uid for session in mine) == sorted(uids[::2])
    assert {session.owner for session in mine} == {owner}
    everyones = [session.uid async for session in catalogue.sessions()]
    assert set(uids) <= set(everyones) and len(everyones) == len(set(everyones))


async def test_an_unreachable_store_is_an_error() -> None:
    times = StoreSettings(answer_timeout_s=0.2, patience_s=0.3)
    away = RedisSessionCatalogue("redis://:secret@127.0.0.1:1", times)
    uid = new_token()
    for step in (
        away.create("ann", SessionChanges()),
        away.load(uid, "ann"),
        away.list_sessions("ann", 1),
        away.patch(uid, "ann", SessionChanges(title="x")),
        away.delete(uid, "ann"),
    ):
        with pytest.raises(StoreUnavailableError) as raised:
            await step
        assert "secret" not in str(raised.value)
    await away.close()
