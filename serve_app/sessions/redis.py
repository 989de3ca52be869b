"""Sessions in Redis or Valkey: turns as msgpack in a list, one Lua script per step.

Opening, committing, leases and probes have connections of their own, so that a turn that was let
in never waits behind those that come in. How a step reaches the server is decided elsewhere.
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from moss_tp.errors import ConfigError, DeadlineExceededError, MossError
from serve_app.errors import (
    IdempotencyInProgressError,
    LeaseLostError,
    SessionBusyError,
    SessionFullError,
    SessionNotFoundError,
    StoreUnavailableError,
    TurnNotStoredError,
)
from serve_app.sessions import scripts
from serve_app.sessions.durability import faults_of
from serve_app.sessions.index import Entry, run_and_list
from serve_app.sessions.keys import (
    GONE,
    IMAGE,
    LIVE,
    SENT,
    holder,
    image_index,
    result_field,
    results_of,
    sent_call,
    session_keys,
)
from serve_app.sessions.packing import pack, pack_turn, unpack_session, unpack_turn
from serve_app.sessions.session import Session, Turn, new_token
from serve_app.sessions.store import Lease, Opened
from serve_app.store.lane import Lane
from serve_app.store.script import Arg, Script

PROBE_S = 1.0


@dataclass(frozen=True)
class StoreSettings:
    """Times in seconds. A session expires `session_ttl_s` after its last turn.

    An attempt may take `answer_timeout_s`. A turn waits `patience_s` for a store that is away
    before its reply, `commit_patience_s` after it. Turns begin over `num_connections` and are
    committed over `num_commit_connections`. A session whose turns have `max_session_bytes` takes
    no more. Chats of `unlisted_owners` are in no list.
    """

    session_ttl_s: float = 7 * 24 * 3600
    lease_s: float = 3
    answer_timeout_s: float = 2
    patience_s: float = 6
    commit_patience_s: float = 30
    num_connections: int = 16
    num_commit_connections: int = 8
    max_session_bytes: int = 16 * 1024 * 1024
    unlisted_owners: frozenset[str] = frozenset({"demo"})

    @property
    def ttl_ms(self) -> int:
        return round(self.session_ttl_s * 1000)


class RedisSessionStore:
    """A SessionStore on a Redis URL: `redis://`, `rediss://` or `unix://`.

    It is durable if the server runs with `appendonly yes` and `appendfsync always`. Use it in one
    event loop only. Raises ConfigError for an invalid URL.
    """

    def __init__(self, url: str, settings: StoreSettings | None = None) -> None:
        self.url = url
        self.settings = settings = settings or StoreSettings()
        answer_s, patience_s = settings.answer_timeout_s, settings.patience_s
        self._opening = Lane(url, settings.num_connections, answer_s, patience_s)
        self._commits = Lane(
            url, settings.num_commit_connections, answer_s, settings.commit_patience_s
        )
        self._leases = Lane(url, 2, answer_s)  # one to renew, one to release
        self._probes = Lane(url, 1, answer_s)
        self._lanes = (self._opening, self._commits, self._leases, self._probes)

    async def check(self, *, may_be_volatile: bool = False) -> Sequence[str]:
        """Why the store may lose chats: reasons to warn of. It also learns where its data are.

        Raises ConfigError if it may evict sessions, however much memory it has, or keeps no
        append-only file, unless it `may_be_volatile`.
        """
        await self._find_data_dir()
        memory, persistence = await self._info("memory"), await self._info("persistence")
        faults = [*faults_of(memory, persistence)]
        if faults and not may_be_volatile:
            raise ConfigError(f"{faults[0]}, or add --allow-volatile-store")
        if not faults and await self._setting("appendfsync") not in ("always", ""):
            return ["the store's appendfsync is not always: a power loss may lose the last second"]
        return faults

    async def is_ready(self) -> bool:
        async def write(redis: Redis) -> Any:
            return await redis.set("moss:probe", "", px=1000)

        with suppress(StoreUnavailableError, DeadlineExceededError):
            await self._probes.run(write, time.monotonic() + PROBE_S)
            return True
        return False

    async def close(self) -> None:
        for lane in self._lanes:
            await lane.close()

    async def load(self, uid: str, owner: str, deadline: float = inf) -> Session | None:
        keys = session_keys(uid, "meta", "turns", "feedback")
        read = await self._open(scripts.LOAD, deadline, keys, owner)
        return None if read is None else unpack_session(uid, owner, read)

    async def load_turn(
        self, uid: str, owner: str, turn_id: str, deadline: float = inf
    ) -> Turn | None:
        keys = session_keys(uid, "meta", "turns", "ids")
        found = await self._open(scripts.LOAD_TURN, deadline, keys, owner, turn_id)
        if found is None:
            raise SessionNotFoundError
        return unpack_turn(found[0]) if found[0] else None

    async def reserve_uid(
        self, owner: str, key: str, deadline: float = inf, *, instead_of: str = ""
    ) -> str:
        name = "moss:start:" + hashlib.sha256(pack([owner, key])).hexdigest()
        args = new_token(), instead_of, self.settings.ttl_ms
        stored = await self._open(scripts.RESERVE, deadline, [name], *args)
        return str(stored.decode())

    async def begin(
        self, lease: Lease, deadline: float = inf, *, may_create: bool
    ) -> Opened | None:
        keys = session_keys(lease.uid, "meta", "turns", "feedback", "keys", "lease", GONE)
        args = lease.owner, lease.key, holder(lease), self._lease_ms, int(may_create)
        limit = self.settings.max_session_bytes
        state, *result = await self._open(scripts.BEGIN, deadline, keys, *args, limit)
        if state == b"missing":
            return None
        if state == b"full":
            raise SessionFullError("the chat is as long as it may be; start a new one")
        if state == b"busy":
            if result[0][len(lease.token) :] == lease.key.encode():
                raise IdempotencyInProgressError("the turn of this Idempotency-Key is running")
            raise SessionBusyError("another turn of this session is running")
        if state == b"stored":
            path = (unpack_turn(result[0]),)
            return Opened(Session(lease.uid, lease.owner, path, path), is_leased=False)
        return Opened(unpack_session(lease.uid, lease.owner, result[0]), is_leased=True)

    async def renew(self, leases: Sequence[Lease]) -> list[bool]:
        calls = [(_lease_key(lease), (holder(lease), self._lease_ms)) for lease in leases]
        are_held = await self._leases.run(
            lambda redis: scripts.RENEW.run_all(redis, calls), self._until(inf)
        )
        return [bool(is_held) for is_held in are_held]

    async def release(self, leases: Sequence[Lease]) -> None:
        calls = [(_lease_key(lease), (holder(lease),)) for lease in leases]
        # A lease that cannot be released sooner has expired by then.
        until = time.monotonic() + self.settings.lease_s
        await self._leases.run(lambda redis: scripts.RELEASE.run_all(redis, calls), until)

    async def claim(self, lease: Lease, call_id: str, deadline: float = inf) -> bool:
        keys = session_keys(lease.uid, "lease", GONE, SENT, "meta")
        args = holder(lease), sent_call(lease.key, call_id), self.settings.ttl_ms
        may_send = await self._open(scripts.SEND, deadline, keys, *args)
        if may_send is None:
            raise _lost()
        return bool(may_send)

    async def find(self, lease: Lease, call_id: str, deadline: float = inf) -> bytes | None:
        keys = session_keys(lease.uid, "lease", GONE, results_of(lease.key))
        args = holder(lease), result_field(call_id)
        found = await self._open(scripts.FIND, deadline, keys, *args)
        if found is None:
            raise _lost()
        return bytes(found[0]) if found[0] else None

    async def record(
        self, lease: Lease, call_id: str, result: bytes, deadline: float = inf
    ) -> bytes:
        keys = session_keys(lease.uid, "lease", GONE, results_of(lease.key), "extras")
        args = holder(lease), result_field(call_id), result
        stands = await self._open(scripts.RECORD, deadline, keys, *args)
        if stands is None:
            raise _lost()
        return bytes(stands)

    async def commit(self, lease: Lease, num_turns: int, turn: Turn, deadline: float = inf) -> Turn:
        names = ("meta", "turns", "keys", "ids", "feedback", "extras", "lease", GONE)
        last = f"{LIVE}:{lease.turn_id}", results_of(lease.key)
        keys = session_keys(lease.uid, *names, *last)
        packed, ttl_ms = (pack_turn(turn), turn.id), self.settings.ttl_ms
        live_token = lease.token if lease.turn_id else ""
        args = lease.owner, lease.key, holder(lease), num_turns, *packed, ttl_ms, live_token
        entry = Entry(lease.owner, lease.uid, ttl_ms)
        was_sent = False

        async def send(redis: Redis) -> Any:
            nonlocal was_sent
            was_sent = True
            if lease.owner in self.settings.unlisted_owners:
                result = await scripts.COMMIT.run(redis, keys, *args)
            else:
                result = await run_and_list(redis, scripts.COMMIT, keys, args, entry)
            if result[0] == b"stored":
                await _renew_pictures(redis, result[2], ttl_ms)
            return result

        try:
            state, *result = await self._commits.run(
                send, self._until(deadline, self.settings.commit_patience_s)
            )
        except DeadlineExceededError as error:
            raise _unsure(was_sent) from error
        if state == b"fenced":
            raise _lost()
        if state != b"stored":
            raise TurnNotStoredError("the session changed while the reply was made; try again")
        return unpack_turn(result[0])

    @property
    def _lease_ms(self) -> int:
        return round(self.settings.lease_s * 1000)

    def _until(self, deadline: float, patience_s: float | None = None) -> float:
        """`deadline`; without one the store has as long as it may be away."""
        if deadline < inf:
            return deadline
        return time.monotonic() + (patience_s or self.settings.patience_s)

    async def _open(self, script: Script, deadline: float, keys: list[str], *args: Arg) -> Any:
        return await self._opening.run(
            lambda redis: script.run(redis, keys, *args), self._until(deadline)
        )

    async def _info(self, section: str) -> dict[str, Any]:
        return await self._probes.run(lambda redis: redis.info(section), self._until(inf))

    async def _find_data_dir(self) -> None:
        """A full disk can be told from other failures if it is one of this machine."""
        if self._probes.is_local and (found := await self._setting("dir")):
            for lane in self._lanes:
                lane.data_dir = Path(found)

    async def _setting(self, name: str) -> str:
        """A setting of the server, empty for a user who may not ask."""
        with suppress(StoreUnavailableError, DeadlineExceededError):
            found = await self._probes.run(lambda redis: redis.config_get(name), self._until(inf))
            return str(found.get(name) or "")
        return ""


def _lease_key(lease: Lease) -> str:
    return session_keys(lease.uid, "lease")[0]


async def _renew_pictures(redis: Redis, keys: Sequence[bytes], ttl_ms: int) -> None:
    """The way to each picture of these keys lives as long as the picture."""
    names = [key.decode().rpartition(f":{IMAGE}:") for key in keys]
    async with redis.pipeline(transaction=False) as pipeline:
        for _, _, image_id in filter(all, names):
            pipeline.pexpire(image_index(image_id), ttl_ms)
        await pipeline.execute()


def _lost() -> LeaseLostError:
    return LeaseLostError("another server has taken up this turn")


def _unsure(was_sent: bool) -> MossError:
    """The error of a commit that has run out of time."""
    if was_sent:
        return StoreUnavailableError("the session store has not confirmed the turn")
    return TurnNotStoredError("the deadline passed before the turn was stored")
