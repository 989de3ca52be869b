"""The API keys and cookies in the store: adds, revokes and lists keys, and finds a secret's.

A book knows all keys, and asks the store whether they changed when it last did so more than a
second ago: so a revoked key is refused everywhere within a second.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any

from serve_app.access import scripts
from serve_app.access.api_key import ApiKey, pack_key, unpack_key
from serve_app.access.cookie_jar import CookieJar
from serve_app.access.steps import make_lane, run_script
from serve_app.api_secret import digest_of
from serve_app.errors import StoreUnavailableError
from serve_app.store.script import Arg, Script

FRESH_S = 1.0
USE_EVERY_S = 60.0  # how exactly a key's last use is known


@dataclass(frozen=True)
class Entry:
    """A key in a list of keys. Times are in milliseconds since 1970; None is never."""

    key: ApiKey
    revoked_ms: int | None
    used_ms: int | None


class KeyBook:
    """The keys in the store at `url`, and their `cookies`. Use it in one event loop only."""

    def __init__(self, url: str, fresh_s: float = FRESH_S) -> None:
        self._lane = make_lane(url)
        self.cookies = CookieJar(self._lane)
        self._fresh_s = fresh_s
        self._version = "unread"
        self._read_at = -inf
        self._by_digest: Mapping[str, ApiKey] = {}
        self._used_at: dict[str, float] = {}
        self._reading: asyncio.Task[None] | None = None

    async def add(self, key: ApiKey) -> None:
        version = secrets.token_hex(8)
        keys = (scripts.KEYS, scripts.VERSION)
        await self._run(scripts.ADD, keys, key.id, pack_key(key), version)

    async def revoke(self, key_id: str) -> bool:
        """Whether there is such a key; from now on it opens nothing, nor do its cookies."""
        keys = (scripts.KEYS, scripts.REVOKED, scripts.VERSION, scripts.cookies_of(key_id))
        return bool(await self._run(scripts.REVOKE, keys, key_id, secrets.token_hex(8)))

    async def entries(self) -> list[Entry]:
        """All keys there ever were, the oldest first."""
        names = (scripts.KEYS, scripts.REVOKED, scripts.USED)
        keys, *times = await self._run(scripts.LIST, names)
        revoked, used = ({i: int(ms) for i, ms in _pairs(flat)} for flat in times)
        entries = [
            Entry(unpack_key(packed), revoked.get(key_id), used.get(key_id))
            for key_id, packed in _pairs(keys)
        ]
        return sorted(entries, key=lambda entry: entry.key.created_ms)

    async def find(self, secret: str) -> ApiKey | None:
        """The key with that secret, unless it is revoked. Notes its use."""
        await self._refresh()
        digest = digest_of(secret)
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            return None
        await self._note_use(key)
        return key

    async def find_by_id(self, key_id: str) -> ApiKey | None:
        """The key, unless it is revoked."""
        await self._refresh()
        return next((key for key in self._by_digest.values() if key.id == key_id), None)

    async def close(self) -> None:
        await self._lane.close()

    async def _refresh(self) -> None:
        """Reads the keys if they may have changed. Requests that come meanwhile share the read,
        and its failure, unless it began too long before them."""
        asked_at = time.monotonic()
        while self._read_at < asked_at - self._fresh_s:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            await asyncio.shield(self._reading)

    async def _read(self) -> None:
        asked_at = time.monotonic()
        names = (scripts.VERSION, scripts.KEYS, scripts.REVOKED)
        if (found := await self._run(scripts.READ, names, self._version)) is not None:
            version, flat, revoked = found
            self._by_digest = _valid(flat, revoked)
            self._version = version.decode()
        self._read_at = asked_at

    async def _note_use(self, key: ApiKey) -> None:
        """Best effort: a store that is away for a moment stops nobody whose key is known."""
        now = time.monotonic()
        if now - self._used_at.get(key.id, -inf) >= USE_EVERY_S:
            self._used_at[key.id] = now
            with suppress(StoreUnavailableError):
                await self._run(scripts.USE, (scripts.USED,), key.id)

    async def _run(self, script: Script, keys: Sequence[str], *args: Arg) -> Any:
        return await run_script(self._lane, script, keys, *args)


def _valid(flat: Sequence[bytes], revoked: Iterable[bytes]) -> dict[str, ApiKey]:
    ended = {key_id.decode() for key_id in revoked}
    keys = (unpack_key(packed) for key_id, packed in _pairs(flat) if key_id not in ended)
    return {key.digest: key for key in keys}


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """The fields of a hash, as HGETALL returns them."""
    return ((flat[i].decode(), flat[i + 1]) for i in range(0, len(flat), 2))
