"""The guarantees of the store, on a real server: atomic, owned, ordered, once, durable."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from moss_tp.errors import ConfigError
from serve_app.errors import (
    IdempotencyInProgressError,
    SessionBusyError,
    SessionNotFoundError,
    StoreUnavailableError,
    TurnNotStoredError,
)
from serve_app.sessions.keys import session_keys
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.session import StoredCall, Turn, is_uid, new_token
from tests.serve_app.sessions.turns import a_lease, a_turn, append


@pytest.fixture
async def short_lived(store_url: str) -> AsyncIterator[RedisSessionStore]:
    client = RedisSessionStore(store_url, StoreSettings(session_ttl_s=1.5, lease_s=0.8))
    yield client
    await client.close()


async def test_a_turn_is_read_back_unchanged(store: RedisSessionStore) -> None:
    lease = a_lease()
    opened = await store.begin(lease, may_create=True)
    assert opened is not None and opened.is_leased and opened.session.turns == ()
    assert await store.load(lease.uid, "ann") is None
    turn = Turn("嗨\0\n", "想", "None", "\nNone\n", "🙂 <eom>", lease.key, "f", 3, "length", "1d")
    turn = replace(
        turn,
        seed=2**63 - 1,
        calls=(StoredCall("1d-0-0", "Search", "嗨", "done", [{"n": 1, "title": "<eor>"}], 7),),
        usage={"prompt_tokens": 7},
        make_up={"dtype": "bfloat16", "plugins": ["calculator"], "params": {"top_p": 0.8}},
    )
    before_ms = round(time.time() * 1000)
    stored = await store.commit(lease, 0, turn)
    assert before_ms - 1 <= stored.created_ms <= time.time() * 1000 + 1
    assert replace(stored, created_ms=0) == turn
    session = await store.load(lease.uid, "ann")
    assert session is not None and session.turns == session.tree == (stored,)
    assert session.created_ms == stored.created_ms


async def test_a_turn_without_the_newest_fields_is_read_with_their_defaults(
    store: RedisSessionStore, store_url: str
) -> None:
    """A session may hold turns that an earlier version stored."""
    lease = a_lease()
    turn = await store.commit(lease, 0, a_turn(lease.key))
    old = asdict(turn)
    del old["finish_reason"], old["usage"], old["calls"], old["created_ms"]
    packed = f"{turn.created_ms}:".encode() + msgpack.packb(old)
    async with Redis.from_url(store_url) as raw:
        await raw.lset(session_keys(lease.uid, "turns")[0], 0, packed)
    session = await store.load(lease.uid, "ann")
    assert session is not None and session.turns == (turn,)


async def test_another_owner_can_neither_read_nor_write(store: RedisSessionStore) -> None:
    lease = a_lease()
    await store.commit(lease, 0, a_turn(lease.key))
    foreign = a_lease(lease.uid, "bob")
    assert await store.load(lease.uid, "bob") is None
    assert await store.begin(foreign, may_create=False) is None
    assert await store.begin(foreign, may_create=True) is None
    with pytest.raises(TurnNotStoredError):
        await store.commit(foreign, 1, a_turn(foreign.key))
    session = await store.load(lease.uid, "ann")
    assert session is not None and len(session.turns) == 1


async def test_a_session_has_one_lease_at_a_time(store: RedisSessionStore) -> None:
    first, second = a_lease(), a_lease()
    second = replace(second, uid=first.uid)
    assert await store.begin(first, may_create=True)
    assert await store.begin(first, may_create=True), "begin is idempotent"
    with pytest.raises(SessionBusyError):
        await store.begin(second, may_create=True)
    with pytest.raises(IdempotencyInProgressError):
        await store.begin(replace(second, key=first.key), may_create=True)
    await store.release([second])
    assert await store.renew([second, first]) == [False, True]
    with pytest.raises(SessionBusyError):
        await store.begin(second, may_create=True)
    await store.release([first])
    assert await store.begin(second, may_create=True)


async def test_commit_ends_the_lease(store: RedisSessionStore) -> None:
    lease = a_lease()
    await store.begin(lease, may_create=True)
    await store.commit(lease, 0, a_turn(lease.key))
    opened = await store.begin(a_lease(lease.uid), may_create=False)
    assert opened is not None and opened.is_leased


async def test_only_a_renewed_lease_does_not_expire(short_lived: RedisSessionStore) -> None:
    lease, other = a_lease(), a_lease()
    other = replace(other, uid=lease.uid)
    await short_lived.begin(lease, may_create=True)
    for _ in range(4):
        await asyncio.sleep(0.3)
        assert await short_lived.renew([lease]) == [True]
    with pytest.raises(SessionBusyError):
        await short_lived.begin(other, may_create=True)
    await asyncio.sleep(1)
    assert await short_lived.renew([lease]) == [False]
    assert await short_lived.begin(other, may_create=True)


async def test_a_turn_on_an_outdated_history_is_refused(store: RedisSessionStore) -> None:
    lease = a_lease()
    late = a_lease(lease.uid)
    await store.commit(lease, 0, a_turn(lease.key))
    for num_turns in (0, 2):
        with pytest.raises(TurnNotStoredError):
            await store.commit(late, num_turns, a_turn(late.key))
    await store.commit(late, 1, a_turn(late.key))


async def test_a_key_is_stored_once(store: RedisSessionStore) -> None:
    lease = a_lease(key="chosen by the client")
    first = await store.commit(lease, 0, a_turn(lease.key, "first"))
    again = replace(lease, token=new_token())
    assert await store.commit(again, 1, a_turn(lease.key, "second")) == first
    opened = await store.begin(again, may_create=False)
    assert opened is not None and not opened.is_leased
    assert opened.session.turns == (first,)


async def test_a_key_reads_its_own_turn_only(store: RedisSessionStore) -> None:
    """A session may have megabytes of others."""
    uid, key = new_token(), new_token()
    parent = await append(store, uid)
    mine = await store.commit(a_lease(uid, key=key), 1, a_turn(key, "mine", parent.id))
    await append(store, uid, mine.id)
    opened = await store.begin(a_lease(uid, key=key), may_create=False)
    assert opened is not None and not opened.is_leased
    assert opened.session.tree == opened.session.turns == (mine,)
    assert await store.load_turn(uid, "ann", mine.id) == mine
    assert await store.load_turn(uid, "ann", new_token()) is None
    for strange in ((uid, "bob"), (new_token(), "ann")):
        with pytest.raises(SessionNotFoundError):
            await store.load_turn(*strange, mine.id)


async def test_a_key_reserves_one_uid_per_owner(store: RedisSessionStore) -> None:
    key = new_token()
    uids = await asyncio.gather(*(store.reserve_uid("ann", key) for _ in range(20)))
    assert len(set(uids)) == 1 and is_uid(uids[0])
    assert await store.reserve_uid("bob", key) != uids[0]
    assert await store.reserve_uid("ann", key + "x") != uids[0]


async def test_an_expired_session_is_gone_and_an_append_renews_the_ttl(
    short_lived: RedisSessionStore,
) -> None:
    lease = a_lease()
    for number in range(3):
        lease = replace(lease, key=f"{number}")
        await short_lived.commit(lease, number, a_turn(lease.key))
        await asyncio.sleep(0.6)
    assert await short_lived.load(lease.uid, "ann") is not None
    await asyncio.sleep(1.7)
    assert await short_lived.load(lease.uid, "ann") is None
    assert await short_lived.begin(a_lease(lease.uid), may_create=False) is None
    with pytest.raises(TurnNotStoredError):
        await short_lived.commit(a_lease(lease.uid), 3, a_turn("5"))
    assert await short_lived.load(lease.uid, "ann") is None


async def test_an_expired_session_leaves_no_keys_in_the_store(
    short_lived: RedisSessionStore, store_url: str
) -> None:
    lease = a_lease()
    await short_lived.begin(lease, may_create=True)
    await short_lived.commit(lease, 0, a_turn(lease.key))
    await asyncio.sleep(1.7)
    async with Redis.from_url(store_url) as raw:
        assert await raw.keys(f"*{lease.uid}*") == []


async def test_racing_clients_append_every_turn_once_and_in_order(store: RedisSessionStore) -> None:
    uid = new_token()

    async def client(number: int) -> None:
        lease = a_lease(uid, key=f"client {number}")
        while True:
            session = await store.load(uid, "ann")
            num_turns = 0 if session is None else len(session.tree)
            turn = a_turn(lease.key, f"{num_turns}")
            try:
                first, second = await asyncio.gather(
                    store.commit(lease, num_turns, turn), store.commit(lease, num_turns, turn)
                )
            except TurnNotStoredError:
                continue
            assert first == second
            return

    await asyncio.gather(*(client(number) for number in range(24)))
    session = await store.load(uid, "ann")
    assert session is not None
    assert [turn.reply for turn in session.tree] == [str(number) for number in range(24)]
    assert len({turn.key for turn in session.tree}) == 24


async def test_an_unreachable_store_is_an_error_in_bounded_time() -> None:
    times = StoreSettings(answer_timeout_s=0.2, patience_s=0.3, commit_patience_s=0.3)
    unreachable = RedisSessionStore("redis://:secret@127.0.0.1:1", times)
    lease = a_lease()
    async with asyncio.timeout(30):
        for step in (
            unreachable.check(),
            unreachable.load(lease.uid, "ann"),
            unreachable.begin(lease, may_create=True),
            unreachable.commit(lease, 0, a_turn(lease.key)),
            unreachable.reserve_uid("ann", "key"),
        ):
            with pytest.raises(StoreUnavailableError, match=r"at 127\.0\.0\.1:1 failed") as raised:
                await step
            assert "secret" not in str(raised.value)
    await unreachable.close()


async def test_a_full_store_refuses_writes_and_keeps_its_sessions(
    store: RedisSessionStore, store_url: str
) -> None:
    lease, late = a_lease(), a_lease()
    await store.commit(lease, 0, a_turn(lease.key))
    async with Redis.from_url(store_url) as raw:
        await raw.config_set("maxmemory", "1")
        try:
            with pytest.raises(StoreUnavailableError):
                await store.commit(late, 0, a_turn(late.key))
        finally:
            await raw.config_set("maxmemory", "0")
    assert await store.load(lease.uid, "ann") is not None
    assert await store.load(late.uid, "ann") is None


def test_an_invalid_url_is_refused() -> None:
    with pytest.raises(ConfigError):
        RedisSessionStore("sqlite:///chats")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=5))
@settings(max_examples=30, deadline=None)
def test_any_text_is_read_back_byte_for_byte(
    store_url: str, texts: list[tuple[str, str, str]]
) -> None:
    async def round_trip() -> None:
        client = RedisSessionStore(store_url)
        uid = new_token()
        turns = [
            Turn(user, "", "", "", reply, str(n), id=f"{n}", make_up={key: reply})
            for n, (user, key, reply) in enumerate(texts)
        ]
        stored = [
            await client.commit(a_lease(uid, key=turn.key), number, turn)
            for number, turn in enumerate(turns)
        ]
        session = await client.load(uid, "ann")
        assert (session.tree if session else ()) == tuple(stored)
        assert [replace(turn, created_ms=0) for turn in stored] == turns
        await client.close()

    asyncio.run(round_trip())
