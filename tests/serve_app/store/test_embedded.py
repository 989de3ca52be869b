"""The embedded store is started, killed, orphaned and stopped; no acknowledged turn is lost."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from math import inf
from pathlib import Path

import pytest
from redis.asyncio import Redis

from serve_app.errors import StoreInUseError, StoreStartError, TurnNotStoredError
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.session import Turn, new_token
from serve_app.sessions.store import Lease
from serve_app.store import embedded
from serve_app.store.embedded import EmbeddedStore
from tests.support.waiting import until

_SUPERVISOR = """
import sys, time, pathlib
from serve_app.store.embedded import EmbeddedStore
store = EmbeddedStore(pathlib.Path(sys.argv[1]))
store.start()
print(store.pid, store.url, flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


async def append(store: RedisSessionStore, uid: str, number: int, deadline: float = inf) -> Turn:
    lease = Lease(uid, "ann", f"key {number}", new_token())
    turn = Turn("u", "t", "c", "r", new_token(), lease.key, id=new_token())
    return await store.commit(lease, number, turn, deadline)


async def read(url: str, uid: str) -> tuple[Turn, ...]:
    store = RedisSessionStore(url)
    session = await store.load(uid, "ann")
    await store.close()
    return session.tree if session else ()


async def test_every_write_is_on_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    """Checks the settings, since only a power loss would show the difference."""
    with EmbeddedStore(tmp_path) as server:
        async with Redis.from_url(server.url) as raw:
            await check_settings(raw)


async def check_settings(raw: Redis) -> None:
    for name, value in (
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("maxmemory-policy", "noeviction"),
    ):
        assert await raw.config_get(name) == {name: value}


async def test_turns_survive_a_restart(tmp_path: Path) -> None:
    uid = new_token()
    with EmbeddedStore(tmp_path / "data") as server:
        store = RedisSessionStore(server.url)
        await store.check()
        turn = await append(store, uid, 0)
        await store.close()
        pid = server.pid
    assert not is_running(pid)
    with EmbeddedStore(tmp_path / "data") as server:
        assert await read(server.url, uid) == (turn,)


async def test_kill_9_loses_no_acknowledged_turn(tmp_path: Path) -> None:
    """The server is killed while clients append; their retries hide it."""
    uids = [new_token() for _ in range(4)]
    stored: dict[str, list[Turn]] = {uid: [] for uid in uids}
    is_over = asyncio.Event()

    async def client(store: RedisSessionStore, uid: str) -> None:
        while not is_over.is_set():
            try:
                stored[uid].append(await append(store, uid, len(stored[uid])))
            except TurnNotStoredError:
                pytest.fail("a restarted store lost a turn or doubled one")

    async def all_go_on() -> None:
        """An answer may be on its way already, but no two."""
        goal = max(map(len, stored.values())) + 2
        await until(lambda: min(map(len, stored.values())) >= goal)

    with EmbeddedStore(tmp_path) as server:
        store = RedisSessionStore(server.url)
        clients = [asyncio.create_task(client(store, uid)) for uid in uids]
        killed = set()
        for _ in range(3):
            await all_go_on()
            killed.add(server.pid)
            os.kill(server.pid, signal.SIGKILL)
        await all_go_on()
        is_over.set()
        await asyncio.gather(*clients)
        await store.close()
        assert len(killed) == 3 and server.pid not in killed
        for uid in uids:
            assert await read(server.url, uid) == tuple(stored[uid])


def no_pidfd(pid: int) -> int:
    raise PermissionError(f"{pid}: not allowed here")


@pytest.mark.parametrize("has_pidfd", [True, False])
async def test_a_server_that_hangs_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_pidfd: bool
) -> None:
    """It never goes on by itself, and every turn is kept."""
    if not has_pidfd:  # as in some containers
        monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    monkeypatch.setattr(embedded, "_HANG_S", 2.0)
    uid = new_token()
    with EmbeddedStore(tmp_path) as server:
        store = RedisSessionStore(server.url)
        first = await append(store, uid, 0)
        hung = server.pid
        os.kill(hung, signal.SIGSTOP)
        second = await append(store, uid, 1, time.monotonic() + 60)
        assert server.pid != hung and not is_running(hung)
        await store.close()
        assert await read(server.url, uid) == (first, second)


async def test_a_restart_that_fails_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server has no log that it could be started with, for a while."""
    log, uid = tmp_path / "store.log", new_token()
    with caplog.at_level(logging.ERROR), EmbeddedStore(tmp_path) as server:
        store = RedisSessionStore(server.url)
        first = await append(store, uid, 0)
        log.unlink()
        log.mkdir()
        os.kill(server.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while "could not be restarted" not in caplog.text:
                await asyncio.sleep(0.05)
        log.rmdir()
        second = await append(store, uid, 1, time.monotonic() + 60)
        await store.close()
        assert await read(server.url, uid) == (first, second)


def test_a_second_start_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as server:
        with pytest.raises(StoreInUseError, match=rf"in use.*{os.getpid()}"):
            EmbeddedStore(tmp_path).start()
        assert is_running(server.pid)
    with EmbeddedStore(tmp_path):
        pass


async def test_the_orphan_of_a_killed_supervisor_is_replaced(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with supervisor:
        assert supervisor.stdout is not None
        pid, url = supervisor.stdout.readline().split()
        store = RedisSessionStore(url)
        uid = new_token()
        turn = await append(store, uid, 0)
        await store.close()
        with pytest.raises(StoreInUseError, match=str(supervisor.pid)):
            EmbeddedStore(tmp_path).start()
        supervisor.kill()
    try:
        assert is_running(int(pid)), "the orphan runs"
        with EmbeddedStore(tmp_path) as server:
            assert not is_running(int(pid))
            assert await read(server.url, uid) == (turn,)
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    assert not Path(url.removeprefix("unix://")).parent.exists()


def test_stale_files_of_another_process_do_no_harm(tmp_path: Path) -> None:
    tmp_path.joinpath("lock").write_text("1")
    tmp_path.joinpath("socket").write_text(str(tmp_path / "gone" / "store.sock"))
    with EmbeddedStore(tmp_path) as server:
        assert is_running(server.pid)


def test_ctrl_c_does_not_reach_the_server(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)


def test_only_its_user_can_connect(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as server:
        socket = Path(server.url.removeprefix("unix://"))
        assert socket.stat().st_mode & 0o077 == 0
        assert socket.parent.stat().st_mode & 0o077 == 0


def test_a_server_that_cannot_start_reports_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()  # a store has used the directory
    broken = tmp_path / "appendonlydir"
    broken.mkdir()
    (broken / "appendonly.aof.manifest").write_text("nonsense\n")
    store = EmbeddedStore(tmp_path)
    started = time.monotonic()
    with pytest.raises(StoreStartError, match=r"manifest|AOF"):
        store.start()
    assert time.monotonic() - started < 15
    with pytest.raises(StoreStartError):
        _ = store.pid
    for path in broken.iterdir():
        path.unlink()
    with store:
        assert is_running(store.pid)
