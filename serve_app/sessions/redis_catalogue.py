"""The catalogue of sessions in Redis or Valkey, over connections of its own.

Turns never wait behind whoever browses chats. What is stored is the session store's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict
from functools import partial
from math import inf
from typing import Any, TypeVar

from redis.asyncio import Redis

from serve_app.errors import TurnNotFoundError
from serve_app.sessions import catalogue_scripts
from serve_app.sessions.catalogue import SearchPage, SessionChanges
from serve_app.sessions.index import (
    MAX_SEARCHED,
    Entry,
    in_batches,
    page,
    read_turns,
    remove,
    run_and_list,
    that_hold,
)
from serve_app.sessions.keys import GONE, GONE_MS, SESSION_NAMES, session_keys, uid_of
from serve_app.sessions.packing import pack, unpack_session
from serve_app.sessions.redis import StoreSettings
from serve_app.sessions.scripts import LOAD
from serve_app.sessions.session import Feedback, Session, SessionSummary, new_token
from serve_app.store.lane import Lane, Step

T = TypeVar("T")

_READ = ("meta", "turns", "feedback")
_SCANNED = 200  # keys at a time


class RedisSessionCatalogue:
    """A SessionCatalogue on the URL of a RedisSessionStore. Use it in one event loop only."""

    def __init__(self, url: str, settings: StoreSettings | None = None) -> None:
        self.settings = settings = settings or StoreSettings()
        self._lane = Lane(url, 4, settings.answer_timeout_s, settings.patience_s)

    async def close(self) -> None:
        await self._lane.close()

    async def create(self, owner: str, changes: SessionChanges, deadline: float = inf) -> Session:
        uid, ttl_ms = new_token(), self.settings.ttl_ms
        keys, args = session_keys(uid, *_READ), (owner, ttl_ms, *_fields_to_set(changes))

        def create(redis: Redis) -> Awaitable[Any]:
            script = catalogue_scripts.CREATE
            if owner in self.settings.unlisted_owners:
                return script.run(redis, keys, *args)
            return run_and_list(redis, script, keys, args, Entry(owner, uid, ttl_ms))

        return unpack_session(uid, owner, await self._run(create, deadline))

    async def load(self, uid: str, owner: str, deadline: float = inf) -> Session | None:
        keys = session_keys(uid, *_READ)
        read = await self._run(lambda redis: LOAD.run(redis, keys, owner), deadline)
        return None if read is None else unpack_session(uid, owner, read)

    async def list_sessions(
        self, owner: str, limit: int, after: str = "", deadline: float = inf
    ) -> list[SessionSummary]:
        if owner in self.settings.unlisted_owners:
            return []
        return await self._run(lambda redis: page(redis, owner, limit, after), deadline)

    async def search(
        self, owner: str, text: str, limit: int, after: str = "", deadline: float = inf
    ) -> SearchPage:
        """See `SessionCatalogue.search`. It reads the sessions in a few steps."""
        listed = await self.list_sessions(owner, MAX_SEARCHED + 1, after, deadline)
        found: list[SessionSummary] = []
        last = ""
        for few in in_batches(listed):
            turns = await self._run(partial(read_turns, lines=few), deadline)
            # In a thread: there may be megabytes, and turns of others go on.
            found += await asyncio.to_thread(that_hold, few, turns, text)
            last = few[-1].uid
            if len(found) >= limit:
                found = found[:limit]
                last = found[-1].uid
                break
        return SearchPage(tuple(found), last, has_more=bool(listed) and last != listed[-1].uid)

    async def patch(
        self, uid: str, owner: str, changes: SessionChanges, deadline: float = inf
    ) -> Session | None:
        keys = session_keys(uid, *_READ, "ids")
        forgotten = ["plugins"] if changes.any_plugins else []
        fields = (len(forgotten), *forgotten, *_fields_to_set(changes))
        args = owner, changes.active or "", *fields
        script = catalogue_scripts.PATCH
        read = await self._run(lambda redis: script.run(redis, keys, *args), deadline)
        return _changed(uid, owner, read)

    async def delete(self, uid: str, owner: str, deadline: float = inf) -> bool:
        others = (name for name in SESSION_NAMES if name not in ("meta", "extras"))
        keys = session_keys(uid, GONE, "extras", "meta", *others)
        args = owner, new_token(), GONE_MS
        script = catalogue_scripts.DELETE
        was_there = await self._run(lambda redis: script.run(redis, keys, *args), deadline)
        if was_there:
            await self._run(lambda redis: remove(redis, owner, uid), deadline)
        return bool(was_there)

    async def set_feedback(
        self, uid: str, owner: str, turn_id: str, feedback: Feedback, deadline: float = inf
    ) -> Session | None:
        keys = session_keys(uid, *_READ, "ids")
        packed = b"" if feedback == Feedback() else pack(asdict(feedback))
        script = catalogue_scripts.FEEDBACK
        read = await self._run(
            lambda redis: script.run(redis, keys, owner, turn_id, packed), deadline
        )
        return _changed(uid, owner, read)

    async def sessions(self, owner: str | None = None) -> AsyncIterator[Session]:
        """See `SessionCatalogue.sessions`. It remembers 64 bits of each session's uid."""
        pattern, cursor = session_keys("*", "meta")[0], 0
        seen: set[int] = set()
        while True:
            cursor, keys = await self._scan(cursor, pattern)
            for key in keys:
                uid = uid_of(key)
                number = int(uid[:16], 16)
                if number in seen:  # a server may give a key twice
                    continue
                seen.add(number)
                if (session := await self._read(uid, key, owner)) is not None:
                    yield session
            if cursor == 0:
                return

    async def _scan(self, cursor: int, pattern: str) -> tuple[int, list[str]]:
        found: Any = await self._run(lambda redis: redis.scan(cursor, pattern, _SCANNED), inf)
        return found[0], [key.decode() for key in found[1]]

    async def _read(self, uid: str, meta: str, owner: str | None) -> Session | None:
        """The session if it is there, and is the owner's."""
        found: Any = await self._run(lambda redis: redis.hget(meta, "owner"), inf)
        if found is None or owner not in (None, found.decode()):
            return None
        return await self.load(uid, found.decode())

    async def _run(self, step: Step[T], deadline: float) -> T:
        until = time.monotonic() + self.settings.patience_s if deadline == inf else deadline
        return await self._lane.run(step, until)


def _fields_to_set(changes: SessionChanges) -> list[str | bytes]:
    """Fields and values of a session's meta, in turn."""
    fields: list[str | bytes] = []
    if changes.title is not None:
        fields += "title", changes.title
    if changes.plugins is not None:
        fields += "plugins", pack(changes.plugins)
    if changes.defaults is not None:
        fields += "defaults", pack(dict(changes.defaults))
    return fields


def _changed(uid: str, owner: str, result: list[Any]) -> Session | None:
    if result[0] == b"missing":
        return None
    if result[0] == b"no turn":
        raise TurnNotFoundError("the session has no such turn")
    return unpack_session(uid, owner, result[1])
