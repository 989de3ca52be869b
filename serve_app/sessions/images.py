"""Pictures that plugins made, in Redis or Valkey, over connections of their own.

A picture lives in its chat's keys, so a delete of the chat takes it along; one that belongs to no
chat has keys of its own. An index leads from its id there. It expires as a chat does, counted from
when it was made or last read, or when its chat got its newest turn.
"""

import time
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from redis.asyncio import Redis

from serve_app.errors import SessionFullError, SessionNotFoundError
from serve_app.sessions.keys import (
    ADD_EXTRAS,
    GONE,
    IMAGE,
    NOW_MS,
    image_index,
    session_keys,
)
from serve_app.sessions.redis import StoreSettings
from serve_app.sessions.session import new_token
from serve_app.store.lane import Step
from serve_app.store.patient_lane import PatientLane
from serve_app.store.script import Script

T = TypeVar("T")

MAX_CHAT_BYTES = 64 * 1024 * 1024  # of all pictures of a chat

# KEYS: picture bytes extras gone. ARGV: owner media_type data ttl_ms max_bytes. Returns a state.
PUT = Script(f"""{NOW_MS}{ADD_EXTRAS}
if redis.call('EXISTS', KEYS[4]) == 1 then return 'gone' end
if redis.call('EXISTS', KEYS[1]) == 1 then return 'kept' end
local total = tonumber(redis.call('GET', KEYS[2]) or 0) + #ARGV[3]
if total > tonumber(ARGV[5]) then return 'full' end
redis.call('SET', KEYS[2], total, 'PX', ARGV[4])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'media_type', ARGV[2], 'data', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
add_extras(KEYS[3], now_ms(), ARGV[4], KEYS[1], KEYS[2])
return 'kept'
""")

# KEYS: picture extras. ARGV: owner ttl_ms. Returns {media_type, data}, or false.
FIND = Script(f"""{NOW_MS}{ADD_EXTRAS}
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return false end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
add_extras(KEYS[2], now_ms(), ARGV[2], KEYS[1])
return redis.call('HMGET', KEYS[1], 'media_type', 'data')
""")


@dataclass(frozen=True)
class ImageFile:
    """A picture as its owner reads it."""

    media_type: str
    data: bytes


class RedisImageStore:
    """The pictures on the URL of a RedisSessionStore. Use it in one event loop only."""

    def __init__(self, url: str, settings: StoreSettings | None = None) -> None:
        self._settings = settings = settings or StoreSettings()
        self._lane = PatientLane(url, 4, settings.answer_timeout_s, settings.patience_s)

    async def close(self) -> None:
        await self._lane.close()

    async def put(
        self, owner: str, uid: str, media_type: str, data: bytes, deadline: float = inf
    ) -> str:
        """The new id of a picture of the chat `uid`, or of none if that is empty.

        Raises SessionNotFoundError if the chat was deleted, SessionFullError if it may have no more
        pictures, and what the store's steps raise.
        """
        image_id, ttl_ms = new_token(), self._settings.ttl_ms
        home = uid or image_id
        keys = _keys(home, image_id)

        async def put(redis: Redis) -> bytes:
            args = owner, media_type, data, ttl_ms, MAX_CHAT_BYTES
            state: bytes = await PUT.run(redis, keys, *args)
            if state == b"kept":
                await redis.set(image_index(image_id), home, px=ttl_ms)
            return state

        state = await self._run(put, deadline)
        if state == b"gone":
            raise SessionNotFoundError
        if state == b"full":
            raise SessionFullError("the chat has as many pictures as it may")
        return image_id

    async def find(self, image_id: str, owner: str, deadline: float = inf) -> ImageFile | None:
        """The picture if it belongs to `owner`, else None."""
        ttl_ms = self._settings.ttl_ms

        async def find(redis: Redis) -> ImageFile | None:
            home: bytes | None = await redis.get(image_index(image_id))  # type: ignore[assignment]
            if home is None:
                return None
            picture, _, extras, _ = _keys(home.decode(), image_id)
            found = await FIND.run(redis, [picture, extras], owner, ttl_ms)
            if found is None:
                return None
            await redis.pexpire(image_index(image_id), ttl_ms)
            return ImageFile(found[0].decode(), found[1])

        return await self._run(find, deadline)

    async def _run(self, step: Step[T], deadline: float) -> T:
        until = time.monotonic() + self._settings.patience_s if deadline == inf else deadline
        return await self._lane.run(step, until)


def _keys(home: str, image_id: str) -> list[str]:
    return session_keys(home, f"{IMAGE}:{image_id}", f"{IMAGE}_bytes", "extras", GONE)
