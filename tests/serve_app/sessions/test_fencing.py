"""A turn is stored by whoever has its lease, and never on a chat that is gone."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from serve_app.errors import LeaseLostError, SessionBusyError, SessionFullError, TurnNotStoredError
from serve_app.sessions.catalogue import SessionChanges
from serve_app.sessions.keys import session_keys
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import Feedback
from tests.serve_app.sessions.turns import a_lease, a_turn, append
from tests.serve_app.store_server import StoreServer


@pytest.fixture
async def catalogue(store_url: str) -> AsyncIterator[RedisSessionCatalogue]:
    client = RedisSessionCatalogue(store_url)
    yield client
    await client.close()


async def keys_of(server: StoreServer, uid: str) -> list[bytes]:
    found = server.command("KEYS", f"*{uid}*")
    assert isinstance(found, list)
    return found


async def test_a_turn_whose_lease_another_one_has_is_refused(store: RedisSessionStore) -> None:
    first, second = a_lease(), a_lease()
    second = a_lease(first.uid)
    assert await store.begin(first, may_create=True)
    await store.release([first])
    assert await store.begin(second, may_create=True)
    with pytest.raises(LeaseLostError):
        await store.commit(first, 0, a_turn(first.key))
    assert await store.load(first.uid, "ann") is None
    assert (await store.commit(second, 0, a_turn(second.key))).key == second.key
    assert isinstance(LeaseLostError(), TurnNotStoredError)


async def test_the_same_key_under_another_token_is_refused_too(store: RedisSessionStore) -> None:
    """Two servers run the same turn: one took it up while the other was stopped."""
    stopped = a_lease()
    taker = a_lease(stopped.uid, key=stopped.key)
    assert await store.begin(stopped, may_create=True)
    await store.release([stopped])
    assert await store.begin(taker, may_create=True)
    with pytest.raises(LeaseLostError):
        await store.commit(stopped, 0, a_turn(stopped.key, "stopped"))
    stored = await store.commit(taker, 0, a_turn(taker.key, "taker"))
    again = await store.commit(stopped, 0, a_turn(stopped.key, "stopped"))
    assert again == stored, "once it is stored, everyone gets it"


async def test_a_lease_that_only_expired_loses_no_turn(store_url: str) -> None:
    store = RedisSessionStore(store_url, StoreSettings(lease_s=0.05))
    lease = a_lease()
    assert await store.begin(lease, may_create=True)
    await asyncio.sleep(0.1)
    assert await store.renew([lease]) == [False]
    assert (await store.commit(lease, 0, a_turn(lease.key))).reply == "ok"
    await store.close()


async def test_a_chat_that_is_deleted_while_a_turn_runs_stays_gone(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue, server: StoreServer
) -> None:

    session = await catalogue.create("ann", SessionChanges(title="secret"))
    for num_turns in (0, 1):
        if num_turns:
            session = await catalogue.create("ann", SessionChanges(title="secret"))
            turn = await append(store, session.uid)
            await catalogue.set_feedback(session.uid, "ann", turn.id, Feedback(True, "secret"))
        lease = a_lease(session.uid)
        assert await store.begin(lease, may_create=False)
        assert await catalogue.delete(session.uid, "ann")
        assert await store.renew([lease]) == [False]
        with pytest.raises(TurnNotStoredError):
            await store.commit(lease, num_turns, a_turn(lease.key))
        assert await store.begin(a_lease(session.uid), may_create=True) is None
        assert await store.load(session.uid, "ann") is None
        gone = session_keys(session.uid, "gone")[0].encode()
        assert await keys_of(server, session.uid) == [gone]


async def test_a_delete_takes_along_what_other_rooms_keep(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue, server: StoreServer
) -> None:
    lease = a_lease()
    turn = await store.commit(lease, 0, a_turn(lease.key))
    extras, events = session_keys(lease.uid, "extras", f"events:{turn.id}")
    server.command("SET", events, "told")
    server.command("ZADD", extras, "1", events)
    assert not await catalogue.delete(lease.uid, "bob")
    assert len(await keys_of(server, lease.uid)) > 4
    assert await catalogue.delete(lease.uid, "ann")
    assert len(await keys_of(server, lease.uid)) == 1
    assert not await catalogue.delete(lease.uid, "ann")


async def test_the_key_that_started_a_deleted_chat_starts_another(
    store: RedisSessionStore, catalogue: RedisSessionCatalogue
) -> None:
    key = a_lease().key
    first = await store.reserve_uid("ann", key)
    assert await store.reserve_uid("ann", key, instead_of="") == first
    second = await store.reserve_uid("ann", key, instead_of=first)
    assert second != first
    assert await store.reserve_uid("ann", key, instead_of=first) == second
    assert await store.reserve_uid("ann", key) == second


async def test_all_of_a_session_expires_together(server: StoreServer) -> None:
    store, catalogue = RedisSessionStore(server.url), RedisSessionCatalogue(server.url)
    lease = a_lease()

    async def expiry_ms() -> int:
        """When the session's keys expire, which is at the same time."""
        keys = await keys_of(server, lease.uid)
        times = [int(str(server.command("PEXPIRETIME", key.decode()))) for key in keys]
        assert len(times) >= 4 and max(times) - min(times) <= 2
        return max(times)

    turn = await store.commit(lease, 0, a_turn(lease.key))
    first = await expiry_ms()
    await asyncio.sleep(0.05)
    await catalogue.set_feedback(lease.uid, "ann", turn.id, Feedback(True))
    await catalogue.patch(lease.uid, "ann", SessionChanges(title="x", active=turn.id))
    assert abs(await expiry_ms() - first) <= 2, "only a turn renews it"
    await append(store, lease.uid)
    assert await expiry_ms() >= first + 50
    await store.close()
    await catalogue.close()


async def test_a_session_has_so_many_bytes(store_url: str) -> None:
    store = RedisSessionStore(store_url, StoreSettings(max_session_bytes=2000))
    first = a_lease()
    await store.commit(first, 0, a_turn(first.key, "x" * 2000))
    with pytest.raises(SessionFullError):
        await store.begin(a_lease(first.uid), may_create=False)
    opened = await store.begin(first, may_create=False)
    assert opened is not None and not opened.is_leased, "its turns are replayed all the same"
    await store.close()


async def test_a_busy_session_stays_so_for_another_key(store: RedisSessionStore) -> None:
    lease = a_lease()
    await store.begin(lease, may_create=True)
    with pytest.raises(SessionBusyError):
        await store.begin(a_lease(lease.uid, key=lease.key + "x"), may_create=True)


async def test_a_refusal_reads_no_turns(store_url: str, server: StoreServer) -> None:
    """A client that tries again and again at a long chat must not hold up the store."""
    store = RedisSessionStore(store_url, StoreSettings(max_session_bytes=2000))
    busy, full = a_lease(), a_lease()
    await store.begin(busy, may_create=True)
    await store.commit(full, 0, a_turn(full.key, "x" * 2000))

    def num_reads() -> int:
        stats = server.command("INFO", "commandstats")
        assert isinstance(stats, dict)
        names = "cmdstat_lrange", "cmdstat_lindex"
        return sum(int(stats.get(name, {"calls": 0})["calls"]) for name in names)

    num_before = num_reads()
    with pytest.raises(SessionBusyError):
        await store.begin(a_lease(busy.uid), may_create=True)
    with pytest.raises(SessionFullError):
        await store.begin(a_lease(full.uid), may_create=False)
    assert num_reads() == num_before
    assert await store.begin(full, may_create=False) is not None
    assert num_reads() > num_before, "it is these reads that are counted"
    await store.close()
