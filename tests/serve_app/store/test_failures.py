"""A store that fails is told as what it is, and at once if waiting does not help."""

import asyncio
import time
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

from serve_app.errors import StoreUnavailableError, TurnNotStoredError
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.session import Turn, new_token
from serve_app.sessions.store import Lease
from serve_app.store.failures import explain, may_pass
from tests.serve_app.store_server import StoreServer

# A step that is tried again takes this long, so one that ends sooner was not.
PATIENCE_S = 60
IMPATIENT = StoreSettings(patience_s=0.3, commit_patience_s=0.3)
# Every file system without room is full; this one is on every Linux.
FULL = Path("/proc")


async def failure_of(store: RedisSessionStore) -> str:
    """What a turn on a failing store reads."""
    lease = Lease(new_token(), "ann", "key", new_token())
    with pytest.raises(StoreUnavailableError) as raised:
        await store.begin(lease, may_create=True)
    with pytest.raises(StoreUnavailableError) as again:
        await store.commit(lease, 0, Turn("hi", "", "", "", "ho", "key"))
    assert str(again.value) == str(raised.value)
    assert "secret" not in str(raised.value)
    return str(raised.value).partition(" failed: ")[2]


async def test_a_full_disk(own_server: StoreServer) -> None:
    store = RedisSessionStore(own_server.url, StoreSettings(patience_s=PATIENCE_S))
    own_server.command("CONFIG", "SET", "appendfsync", "everysec")
    assert await store.is_ready()
    own_server.fill_disk()
    async with asyncio.timeout(PATIENCE_S / 2):
        while await store.is_ready():
            await asyncio.sleep(0.05)
        said = await failure_of(store)
    # A write that fails in part reads as the first, one that fails wholly as the second.
    reasons = "No space left on device", "File too large"
    assert said in [f"it cannot write to its disk: {reason}" for reason in reasons]
    await store.close()


async def test_a_full_memory(own_server: StoreServer) -> None:
    store = RedisSessionStore(own_server.url, StoreSettings(patience_s=PATIENCE_S))
    own_server.command("CONFIG", "SET", "maxmemory", "1")
    async with asyncio.timeout(PATIENCE_S / 2):
        assert await failure_of(store) == "its memory is full"
    assert not await store.is_ready()
    await store.close()


async def test_a_wrong_password(own_server: StoreServer) -> None:
    own_server.command("ACL", "SETUSER", "ann", "on", ">right", "+@all", "~*")
    url = own_server.url.replace("unix://", "unix://ann:secret@")
    store = RedisSessionStore(url, StoreSettings(patience_s=PATIENCE_S))
    async with asyncio.timeout(PATIENCE_S / 2):
        assert await failure_of(store) == "it refuses the user name or the password"
    await store.close()


async def test_a_missing_permission(own_server: StoreServer) -> None:
    own_server.command("ACL", "SETUSER", "ann", "on", ">secret", "+@all", "-eval", "-evalsha", "~*")
    url = own_server.url.replace("unix://", "unix://ann:secret@")
    store = RedisSessionStore(url, StoreSettings(patience_s=PATIENCE_S))
    async with asyncio.timeout(PATIENCE_S / 2):
        assert await failure_of(store) == "its user lacks a permission"
    await store.close()


async def test_a_replica_takes_no_writes_until_it_is_promoted(own_server: StoreServer) -> None:
    own_server.command("REPLICAOF", "127.0.0.1", "1")
    store = RedisSessionStore(own_server.url, IMPATIENT)
    assert await failure_of(store) == "it is a replica that takes no writes"
    assert not await store.is_ready()
    await store.close()
    store = RedisSessionStore(own_server.url, StoreSettings(patience_s=PATIENCE_S))
    lease = Lease(new_token(), "ann", "key", new_token())
    begun = asyncio.create_task(store.begin(lease, may_create=True))
    await asyncio.sleep(0.2)
    assert not begun.done(), "a failover is a delay"
    own_server.command("REPLICAOF", "NO", "ONE")
    assert await begun
    await store.close()


async def test_a_server_that_forgot_its_scripts_learns_them_again(own_server: StoreServer) -> None:
    store = RedisSessionStore(own_server.url)
    for number in range(3):
        own_server.command("SCRIPT", "FLUSH")
        lease = Lease(new_token(), "ann", f"key {number}", new_token())
        assert await store.begin(lease, may_create=True)
        own_server.command("SCRIPT", "FLUSH")
        assert await store.renew([lease]) == [True]
        await store.commit(lease, 0, Turn("hi", "", "", "", "ho", lease.key))
    await store.close()


async def test_nobody_listens(tmp_path: Path) -> None:
    store = RedisSessionStore(f"unix://{tmp_path / 'socket'}", IMPATIENT)
    assert await failure_of(store) == "No such file or directory"
    assert not await store.is_ready()
    await store.close()
    store = RedisSessionStore("redis://ann:secret@127.0.0.1:1", IMPATIENT)
    assert await failure_of(store) == "Connection refused"
    await store.close()


@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)  # it is the client that counts
async def test_a_server_that_hangs(own_server: StoreServer) -> None:
    times = StoreSettings(answer_timeout_s=0.2, patience_s=1.5, commit_patience_s=1.5)
    store = RedisSessionStore(own_server.url, times)
    with own_server.stopped():
        assert await failure_of(store) == "it does not answer"
        assert not await store.is_ready()
    assert await store.is_ready()
    await store.close()


async def test_only_a_turn_that_was_not_sent_is_said_not_to_be_stored(
    own_server: StoreServer,
) -> None:
    store = RedisSessionStore(own_server.url)
    lease = Lease(new_token(), "ann", "key", new_token())
    turn = Turn("hi", "", "", "", "ho", lease.key, id=new_token())
    assert await store.begin(lease, may_create=True)
    with own_server.stopped():
        with pytest.raises(StoreUnavailableError, match="has not confirmed the turn"):
            await store.commit(lease, 0, turn, time.monotonic() + 0.3)
        with pytest.raises(TurnNotStoredError, match="before the turn was stored"):
            await store.commit(lease, 0, turn, time.monotonic() - 1)
    stored = await store.commit(lease, 0, turn)
    assert stored.id == turn.id, "it is stored once, by now"
    session = await store.load(lease.uid, "ann")
    assert session is not None and session.turns == (stored,)
    await store.close()


@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)  # it is the client that counts
async def test_a_server_that_hangs_is_away_however_many_wait(own_server: StoreServer) -> None:
    """Those in line, too, get the truth, and all at once instead of one after another."""
    times = StoreSettings(answer_timeout_s=0.5, patience_s=2, num_connections=2)
    store = RedisSessionStore(own_server.url, times)
    lease = Lease(new_token(), "ann", "key", new_token())
    with own_server.stopped():
        start = time.monotonic()
        results = await asyncio.gather(
            *(store.begin(lease, may_create=True) for _ in range(100)), return_exceptions=True
        )
        assert time.monotonic() - start < 25, "one after another they take 100 s"
    assert {type(result) for result in results} == {StoreUnavailableError}
    await store.close()


def test_a_server_that_ended_because_its_disk_is_full() -> None:
    """With `appendfsync always` it ends, and all a client sees is a closed connection."""
    closed = ConnectionError("Connection closed by server.")
    assert explain(closed) == explain(closed, Path("/")) == "it closed the connection"
    for error in (closed, TimeoutError()):
        assert explain(error, FULL) == "it cannot write to its disk: No space left on device"
    assert may_pass(closed)


@pytest.mark.parametrize(
    "reply",
    [
        "Error running script (call to f_1): @user_script:9: -MISCONF Errors writing to the AOF"
        " file: No space left on device",
        "MISCONF Errors writing to the AOF file: No space left on device script: 1, on @user:1.",
    ],
    ids=["Redis 6", "Redis 7"],
)
def test_the_errors_of_scripts(reply: str) -> None:
    error = ResponseError(reply)
    assert explain(error) == "it cannot write to its disk: No space left on device"
    assert not may_pass(error)


def test_an_unknown_error_is_told_by_its_kind_only() -> None:
    assert explain(NoScriptError("secret")) == "NoScriptError"
    assert not may_pass(NoScriptError("secret"))
