"""The groups that load, as each of them says in the store: Serve shows only those that are up."""

import json
import time
from collections.abc import Sequence

from moss_tp.errors import MossError
from serve_app.groups import GroupState
from serve_app.store.patient_lane import PatientLane
from serve_app.store.script import Script

HERE_S = 10.0  # one that has not been heard of for so long has ended; imports block all threads
ANSWER_S = 0.5
_KEY = "moss:{groups}:loading"

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# A sorted set of groups, by when they are forgotten. Args: what the group said before, and says
# now ('' for nothing), ms.
_PUT = Script(
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[2] ~= '' then redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2]) end
"""
)
_READ = Script(_NOW + "return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')")


class LoadingBoard:
    """`url` is the store's. A store that is away, or slow, holds nobody up."""

    def __init__(self, url: str) -> None:
        self._lane = PatientLane(url, 1, ANSWER_S)
        self._said = ""

    async def put(self, group: GroupState | None) -> bool:
        """Says what group this one is, or with None that it loads no more; whether it did."""
        said = "" if group is None else json.dumps([group.replica, group.ranks, group.phase])
        args = self._said, said, round(HERE_S * 1000)
        try:
            await self._lane.run(lambda redis: _PUT.run(redis, [_KEY], *args), _soon())
        except MossError:
            return False
        self._said = said
        return True

    async def read(self) -> Sequence[GroupState]:
        """All groups that load, by name; none without the store."""
        try:
            found = await self._lane.run(lambda redis: _READ.run(redis, [_KEY]), _soon())
        except MossError:
            return ()
        return [GroupState("loading", *each) for each in sorted(map(json.loads, found))]

    async def close(self) -> None:
        await self._lane.close()


def _soon() -> float:
    return time.monotonic() + ANSWER_S
