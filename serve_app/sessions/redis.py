"""Sessions in Redis or Valkey: turns as msgpack in a list, one Lua script per step.

Every step is idempotent, so the client retries for a few seconds after a lost response. A store
that restarts within that time causes a delay, not an error.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from moss_tp.errors import ConfigError
from serve_app.errors import (
    IdempotencyInProgressError,
    SessionBusyError,
    StoreUnavailableError,
    TurnNotStoredError,
)
from serve_app.sessions import scripts
from serve_app.sessions.session import Session, Turn, new_token
from serve_app.sessions.store import Lease, Opened


@dataclass(frozen=True)
class StoreSettings:
    """Times in seconds. A session expires `session_ttl_s` after its last turn."""

    session_ttl_s: float = 7 * 24 * 3600
    lease_s: float = 15
    answer_timeout_s: float = 2
    max_retries: int = 6


class RedisSessionStore:
    """A SessionStore on a Redis URL: `redis://`, `rediss://` or `unix://`.

    It is durable if the server runs with `appendonly yes` and `appendfsync always`. Use it in one
    event loop only. Raises ConfigError for an invalid URL.
    """

    def __init__(self, url: str, settings: StoreSettings | None = None) -> None:
        self.settings = settings or StoreSettings()
        backoff = ExponentialBackoff(cap=1, base=0.05)
        try:
            self._redis: Redis = Redis.from_url(
                url,
                retry=Retry(backoff, self.settings.max_retries),
                socket_timeout=self.settings.answer_timeout_s,
                socket_connect_timeout=self.settings.answer_timeout_s,
            )
        except ValueError as error:
            raise ConfigError(f"not a store's URL: {error}") from error
        self._address = _address(self._redis.connection_pool.connection_kwargs)
        register = self._redis.register_script
        self._load = register(scripts.LOAD)
        self._begin = register(scripts.BEGIN)
        self._renew = register(scripts.RENEW)
        self._release = register(scripts.RELEASE)
        self._commit = register(scripts.COMMIT)

    async def check(self) -> None:
        """Raises ConfigError if the store may evict sessions, however much memory it has."""
        async with self._errors():
            memory: dict[str, Any] = await self._redis.info("memory")
        if (policy := memory.get("maxmemory_policy", "noeviction")) != "noeviction":
            raise ConfigError(
                f"the store evicts ({policy}), which would lose chats;"
                " set its maxmemory-policy to noeviction"
            )

    async def is_durable(self) -> bool:
        """Whether the server keeps an append-only file, so that a crash loses no turn."""
        async with self._errors():
            persistence: dict[str, Any] = await self._redis.info("persistence")
        return bool(persistence.get("aof_enabled"))

    async def close(self) -> None:
        await self._redis.aclose()

    async def load(self, uid: str, owner: str) -> Session | None:
        turns = await self._run(self._load, _keys(uid, "meta", "turns"), owner)
        return None if turns is None else _session(uid, owner, turns)

    async def reserve_uid(self, owner: str, key: str) -> str:
        name = "moss:start:" + hashlib.sha256(msgpack.packb([owner, key])).hexdigest()
        uid = new_token()
        ttl_ms = round(self.settings.session_ttl_s * 1000)
        async with self._errors():
            # A retry may find the uid that its first attempt set, so read it back.
            await self._redis.set(name, uid, nx=True, px=ttl_ms)
            stored = await self._redis.get(name)
        return stored.decode() if isinstance(stored, bytes) else uid

    async def begin(self, lease: Lease, *, may_create: bool) -> Opened | None:
        keys = _keys(lease.uid, "meta", "turns", "keys", "lease")
        state, *result = await self._run(
            self._begin, keys, lease.owner, lease.key, lease.token, self._lease_ms, int(may_create)
        )
        if state == b"missing":
            return None
        if state == b"busy":
            if result[0] == lease.key.encode():
                raise IdempotencyInProgressError("the turn of this Idempotency-Key is running")
            raise SessionBusyError("another turn of this session is running")
        return Opened(_session(lease.uid, lease.owner, result[0]), state == b"leased")

    async def renew(self, lease: Lease) -> bool:
        keys = _keys(lease.uid, "lease")
        return bool(await self._run(self._renew, keys, lease.token, lease.key, self._lease_ms))

    async def release(self, lease: Lease) -> None:
        await self._run(self._release, _keys(lease.uid, "lease"), lease.token, lease.key)

    async def commit(self, lease: Lease, num_turns: int, turn: Turn) -> Turn:
        keys = _keys(lease.uid, "meta", "turns", "keys", "lease")
        ttl_ms = round(self.settings.session_ttl_s * 1000)
        packed: bytes = msgpack.packb(asdict(turn))
        stored = await self._run(
            self._commit, keys, lease.owner, lease.key, lease.token, num_turns, packed, ttl_ms
        )
        if stored is None:
            raise TurnNotStoredError("the session changed while the reply was made; try again")
        return _unpack(stored)

    @property
    def _lease_ms(self) -> int:
        return round(self.settings.lease_s * 1000)

    async def _run(self, script: AsyncScript, keys: list[str], *args: str | bytes | int) -> Any:
        async with self._errors():
            return await script(keys=keys, args=args)

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """Translates Redis's errors, whose messages may contain the password."""
        try:
            yield
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(
                f"the session store at {self._address} failed: {type(error).__name__}"
            ) from error


def _address(connection: Mapping[str, Any]) -> str:
    """The server's address, without user name and password."""
    default = f"{connection.get('host', 'localhost')}:{connection.get('port', 6379)}"
    return str(connection.get("path", default))


def _keys(uid: str, *names: str) -> list[str]:
    return [f"moss:{{{uid}}}:{name}" for name in names]


def _session(uid: str, owner: str, turns: list[bytes]) -> Session:
    return Session(uid, owner, tuple(_unpack(turn) for turn in turns))


def _unpack(packed: bytes) -> Turn:
    return Turn(**msgpack.unpackb(packed))
