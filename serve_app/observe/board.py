"""The board in the store on which all processes of a server put their samples."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from redis.asyncio import Redis

from serve_app.observe.scripts import (
    ENDED,
    FOLD,
    KEYS,
    LOG_KEY,
    PUBLISH,
    READ,
    SETTLE,
)
from serve_app.observe.snapshot import add_up, pack, unpack, without_gauges
from serve_app.store.lane import Lane
from serve_app.store.script import Arg, Script

NUM_CONNECTIONS = 2
ANSWER_S = 2.0
LIMIT_S = 4.0
STALE_MS = 5000  # without a beat for so long, a process's gauges say nothing

Beats = Mapping[str, str]


@dataclass(frozen=True)
class Reading:
    """All snapshots by process, those processes that are there, and how many groups were lost."""

    snapshots: Mapping[str, bytes]
    live: frozenset[str]
    num_restarts: int


class Board:
    """`url` is the store's. Every method raises StoreUnavailableError, DeadlineExceededError."""

    def __init__(self, url: str) -> None:
        self._lane = Lane(url, NUM_CONNECTIONS, ANSWER_S)

    async def publish(self, name: str, snapshot: bytes | None) -> Beats:
        """Says that process `name` is there, with its samples if they have changed.

        Returns the beats of all processes.
        """
        return _pairs(await self._run(PUBLISH, name, snapshot or b""))

    async def read(self) -> Reading:
        now, beats, snapshots, restarts = await self._run(READ)
        live = {name for name, beat in _pairs(beats).items() if now - float(beat) < STALE_MS}
        by_name = dict(zip(map(_text, snapshots[::2]), snapshots[1::2], strict=True))
        return Reading(by_name, frozenset(live), int(restarts))

    async def settle(self, name: str, beat: str = "", *, counts: bool = False) -> None:
        """Notes once that a process has ended, if it was not there since `beat`."""
        await self._run(SETTLE, name, beat, int(counts))

    async def fold(self, name: str) -> None:
        """Adds what a process has left, which has ended long ago, to that of all those."""
        snapshots = (await self.read()).snapshots
        if (data := snapshots.get(name)) is None:
            return
        old = snapshots.get(ENDED, b"")
        parts = [without_gauges(unpack(each)) for each in (old, data) if each]
        await self._run(FOLD, name, data, old, pack(add_up(parts)))

    async def log_key(self) -> bytes:
        """The key of the hashes in all logs of this server."""

        async def step(redis: Redis) -> Any:
            await redis.hsetnx(KEYS[3], LOG_KEY, token_hex(16))
            return await redis.hget(KEYS[3], LOG_KEY)

        return bytes(await self._lane.run(step, time.monotonic() + LIMIT_S))

    async def close(self) -> None:
        await self._lane.close()

    async def _run(self, script: Script, *args: Arg) -> Any:
        deadline = time.monotonic() + LIMIT_S
        return await self._lane.run(lambda redis: script.run(redis, KEYS, *args), deadline)


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    texts: Iterable[str] = map(_text, flat)
    return dict(zip(texts, texts, strict=True))


def _text(value: bytes) -> str:
    return value.decode()
