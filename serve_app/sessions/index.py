"""The index of each owner's sessions, newest first: a hint, of which every entry is checked on use.

It is not on the node of the sessions, so it is written beside a step, in the same round trip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from serve_app.errors import SessionNotFoundError
from serve_app.sessions.keys import owner_key, session_keys
from serve_app.sessions.session import SessionSummary
from serve_app.store.script import Arg, Script

MAX_LISTED = 10_000  # of an owner's sessions; older ones are reached by their uid only

# KEYS: index. ARGV: uid ttl_ms max_listed.
ADD = Script("""
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], string.format('%.0f', time[1] * 1000000 + time[2]), ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

# KEYS: index. ARGV: the uid before the first one, or "". Returns a rank, false if it is not there.
RANK = Script("""
if ARGV[1] == '' then return 0 end
local rank = redis.call('ZREVRANK', KEYS[1], ARGV[1])
return rank and rank + 1
""")


# KEYS: meta. ARGV: owner.
SUMMARY = Script("""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return false end
return redis.call('HMGET', KEYS[1], 'title', 'created', 'updated', 'num_turns')
""")


@dataclass(frozen=True)
class Entry:
    """A session in its owner's index, which expires with its newest session."""

    owner: str
    uid: str
    ttl_ms: int


async def run_and_list(
    redis: Redis, step: Script, keys: Sequence[str], args: Sequence[Arg], entry: Entry
) -> Any:
    """The result of `step`, after which its session leads the owner's list."""
    async with redis.pipeline(transaction=False) as pipeline:
        step.queue(pipeline, keys, *args)
        ADD.queue(pipeline, [owner_key(entry.owner)], entry.uid, entry.ttl_ms, MAX_LISTED)
        # An error that the pipeline raises itself would quote the turn.
        result, _ = await pipeline.execute(raise_on_error=False)
    if isinstance(result, Exception):
        raise result
    return result


async def page(redis: Redis, owner: str, limit: int, after: str) -> list[SessionSummary]:
    """At most `limit` of the owner's sessions after that one. Removes entries that are no more.

    Raises SessionNotFoundError if `after` is not listed.
    """
    key = owner_key(owner)
    first = await RANK.run(redis, [key], after)
    if first is None:
        raise SessionNotFoundError
    found: list[SessionSummary] = []
    while missing := limit - len(found):
        start = first + len(found)
        listed: Any = await redis.zrevrange(key, start, start + missing - 1)
        uids = [uid.decode() for uid in listed]
        calls = [(session_keys(uid, "meta")[0], (owner,)) for uid in uids]
        read = dict(zip(uids, await SUMMARY.run_all(redis, calls), strict=True))
        found += [_summary(uid, fields) for uid, fields in read.items() if fields is not None]
        if dead := [uid for uid, fields in read.items() if fields is None]:
            await redis.zrem(key, *dead)
        if len(uids) < missing:
            break
    return found


async def remove(redis: Redis, owner: str, uid: str) -> None:
    await redis.zrem(owner_key(owner), uid)


def _summary(uid: str, fields: Sequence[bytes | None]) -> SessionSummary:
    title, created, updated, num_turns = fields
    return SessionSummary(
        uid, (title or b"").decode(), int(created or 0), int(updated or 0), int(num_turns or 0)
    )
