"""The index of each owner's sessions, newest first: a hint, of which every entry is checked on use.

It is not on the node of the sessions, so it is written beside a step, in the same round trip.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from serve_app.errors import SessionNotFoundError
from serve_app.sessions.keys import owner_key, session_keys
from serve_app.sessions.packing import texts_of
from serve_app.sessions.session import SessionSummary
from serve_app.store.script import Arg, Script

MAX_LISTED = 10_000  # of an owner's sessions; older ones are reached by their uid only
# What one search looks at, at most: chats, and bytes of turns, besides those of the first chat.
MAX_SEARCHED, MAX_SEARCHED_BYTES = 200, 16 * 1024 * 1024
# What it reads at a time.
_FEW, _FEW_BYTES = 25, 4 * 1024 * 1024

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
return redis.call('HMGET', KEYS[1], 'title', 'created', 'updated', 'num_turns', 'bytes')
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
    title, *numbers = fields
    return SessionSummary(uid, (title or b"").decode(), *(int(number or 0) for number in numbers))


def in_batches(lines: Sequence[SessionSummary]) -> Iterator[list[SessionSummary]]:
    """Those of `lines` that one search looks at, in the batches in which it reads their turns."""
    few: list[SessionSummary] = []
    num_bytes = few_bytes = 0
    for number, line in enumerate(lines[:MAX_SEARCHED]):
        num_bytes += line.num_bytes
        if number and num_bytes > MAX_SEARCHED_BYTES:
            break
        if few and (len(few) == _FEW or few_bytes + line.num_bytes > _FEW_BYTES):
            yield few
            few, few_bytes = [], 0
        few.append(line)
        few_bytes += line.num_bytes
    if few:
        yield few


async def read_turns(redis: Redis, lines: Sequence[SessionSummary]) -> list[list[bytes]]:
    """The stored turns of each session, whose owner was checked: it never gets another one."""
    async with redis.pipeline(transaction=False) as pipeline:
        for line in lines:
            pipeline.lrange(session_keys(line.uid, "turns")[0], 0, -1)
        turns: list[list[bytes]] = await pipeline.execute()
    return turns


def that_hold(
    lines: Sequence[SessionSummary], turns: Sequence[Sequence[bytes]], text: str
) -> list[SessionSummary]:
    """Those of `lines` in whose title or turns `text` is, whatever the case of its letters."""
    sought = text.casefold()

    def holds(line: SessionSummary, stored: Sequence[bytes]) -> bool:
        told = (each for turn in stored for each in texts_of(turn))
        return sought in line.title.casefold() or any(sought in each.casefold() for each in told)

    return [line for line, stored in zip(lines, turns, strict=True) if holds(line, stored)]
