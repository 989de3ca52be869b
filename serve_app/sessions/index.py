"""The index of each owner's sessions, newest first: a hint, of which every entry is checked on use.

It is not on the node of the sessions, so it is written beside a step, in the same round trip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from serve_app.sessions.keys import NOW_MS, owner_key
from serve_app.store.script import Arg, Script

MAX_LISTED = 10_000  # of an owner's sessions; older ones are reached by their uid only

# KEYS: index. ARGV: uid ttl_ms max_listed.
ADD = Script(f"""{NOW_MS}
redis.call('ZADD', KEYS[1], now_ms(), ARGV[1])
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
