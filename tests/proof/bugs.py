"""Eight bugs to plant: each is one part of a server, broken as it is easily broken."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, ClassVar

from redis.asyncio import Redis

from serve_app.chat.resume import TimedOutput
from serve_app.live.event import Telling
from serve_app.live.record import Hold
from serve_app.live.redis import RedisLiveStore
from serve_app.live.store import Append, Standing
from serve_app.sessions.keys import session_keys
from serve_app.sessions.packing import pack_turn, unpack_turn
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import Session, Turn
from serve_app.sessions.store import Lease, Opened
from tests.proof.history.client import WEIGHTS
from tests.proof.world import Parts


class GetSetStore(RedisSessionStore):
    """Takes no lease; a commit reads all turns, and writes them back with one more. Between the two
    it is slow enough for another commit to read, too, if one comes within a second."""

    _alone: ClassVar[dict[str, asyncio.Event]] = {}  # by uid: a commit that has read

    async def begin(
        self, lease: Lease, deadline: float = inf, *, may_create: bool
    ) -> Opened | None:
        session = await self.load(lease.uid, lease.owner)
        if session is None:
            return None
        for turn in session.tree:
            if turn.key == lease.key:
                return Opened(replace(session, turns=(turn,), tree=(turn,)), is_leased=False)
        return Opened(session, is_leased=True)

    async def commit(self, lease: Lease, num_turns: int, turn: Turn, deadline: float = inf) -> Turn:
        turns, meta, ids = session_keys(lease.uid, "turns", "meta", "ids")
        stored = b"1:" + pack_turn(turn)
        async with Redis.from_url(self.url) as redis:
            found: Any = await redis.lrange(turns, 0, -1)
            await self._another_has_read(lease.uid)
            async with redis.pipeline(transaction=True) as writes:
                writes.delete(turns)
                writes.rpush(turns, *found, stored)
                writes.hset(ids, turn.id, str(len(found)))
                writes.hset(meta, "active", turn.id)
                await writes.execute()
        return unpack_turn(stored)

    async def _another_has_read(self, uid: str) -> None:
        if (first := self._alone.pop(uid, None)) is not None:
            first.set()
            return
        self._alone[uid] = second = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await second.wait()
        if self._alone.get(uid) is second:
            del self._alone[uid]


class OwnerlessCatalogue(RedisSessionCatalogue):
    """Gives a chat to whoever knows its uid."""

    async def load(self, uid: str, owner: str, deadline: float = inf) -> Session | None:
        (meta,) = session_keys(uid, "meta")
        found: Any = await self._run(lambda redis: redis.hget(meta, "owner"), deadline)
        return await super().load(uid, found.decode() if found else owner, deadline)


class KeylessStore(RedisSessionStore):
    """Forgets under which key a turn was stored."""

    async def commit(self, lease: Lease, num_turns: int, turn: Turn, deadline: float = inf) -> Turn:
        stored = await super().commit(lease, num_turns, turn, deadline)
        async with Redis.from_url(self.url) as redis:
            await redis.hdel(session_keys(lease.uid, "keys")[0], lease.key)
        return stored


class LateStore(RedisSessionStore):
    """Says that a turn is stored, and stores it a moment later."""

    async def commit(self, lease: Lease, num_turns: int, turn: Turn, deadline: float = inf) -> Turn:
        async def later() -> None:
            await asyncio.sleep(0.3)
            await commit(lease, num_turns, turn, deadline)

        commit = super().commit
        self._late = asyncio.create_task(later())
        self._late.add_done_callback(lambda task: task.cancelled() or task.exception())
        return replace(turn, created_ms=1)


class RepeatingLiveStore(RedisLiveStore):
    """Lets whoever takes a turn up send its calls again."""

    async def find(self, hold: Hold, call_id: str) -> TimedOutput | None:
        return None

    async def claim(self, hold: Hold, call_id: str, deadline: float) -> bool:
        return True


class DisorderedLiveStore(RedisLiveStore):
    """Stores the events of a write in another order."""

    async def append(self, appends: Sequence[Append]) -> list[Standing]:
        return await super().append([replace(a, events=a.events[::-1]) for a in appends])


class UnfencedLiveStore(RedisLiveStore):
    """Asks nobody whether a turn is still its teller's, and numbers events by itself. From time to
    time a process stands still for a while, as under SIGSTOP."""

    num_appends = 0

    async def append(self, appends: Sequence[Append]) -> list[Standing]:
        type(self).num_appends += 1
        if self.num_appends % 40 == 0:
            await asyncio.sleep(2 * self.settings.hold_s)
        current = [replace(a, hold=await self._newest(a.hold)) for a in appends]
        async with Redis.from_url(self._url) as redis:
            for each in current:
                turn = each.hold.turn
                key = session_keys(turn.uid, f"live:{turn.id}:events")[0]
                await redis.rpush(key, *each.events)
        return [Standing(True) for _ in appends]

    async def patrol(self, ingress: str, holds: Sequence[Hold], is_leaving: bool) -> Any:
        """A turn that stands still is not renewed."""
        return await super().patrol(ingress, [], is_leaving)

    async def end(self, hold: Hold, number: int, last: Telling, deadline: float = inf) -> None:
        turn = hold.turn
        key = session_keys(turn.uid, f"live:{turn.id}:events")[0]
        async with Redis.from_url(self._url) as redis:
            number = await redis.llen(key)
        await super().end(await self._newest(hold), number, last, deadline)

    async def _newest(self, hold: Hold) -> Hold:
        (key,) = session_keys(hold.turn.uid, f"live:{hold.turn.id}")
        async with Redis.from_url(self._url) as redis:
            token: Any = await redis.hget(key, "token")
        return replace(hold, token=token.decode() if token else hold.token)

    def __init__(self, url: str, *rest: Any) -> None:
        super().__init__(url, *rest)
        self._url = url


class SeedlessStore(RedisSessionStore):
    """Does not store what a turn was drawn with."""

    async def commit(self, lease: Lease, num_turns: int, turn: Turn, deadline: float = inf) -> Turn:
        return await super().commit(lease, num_turns, replace(turn, seed=0), deadline)


@dataclass(frozen=True)
class Bug:
    """A server with the bug, and how the checker's lines on it begin. Clients do things as often as
    `weights` say, while ingresses die or not."""

    parts: Parts
    found: tuple[str, ...]
    weights: Mapping[str, int] = field(default_factory=lambda: WEIGHTS)
    is_killed: bool = True


BUGS = {
    "GET/SET store": Bug(
        Parts(sessions=GetSetStore),
        ("G1 lost", "G2 not append-only"),
        # Live turns take turns even so.
        weights={"demo": 1, "chat": 1},
        is_killed=False,
    ),
    "no owner check": Bug(Parts(catalogue=OwnerlessCatalogue), ("G5 foreign",)),
    "no idempotency": Bug(Parts(sessions=KeylessStore), ("G3",)),
    "reply before commit": Bug(Parts(sessions=LateStore), ("G1 lost",)),
    "call sent again": Bug(Parts(live=RepeatingLiveStore), ("G9 sent again",)),
    "events out of order": Bug(Parts(live=DisorderedLiveStore), ("G7",)),
    "no fencing": Bug(Parts(live=UnfencedLiveStore), ("G7 told otherwise", "G7 two tellers")),
    "seed not stored": Bug(Parts(sessions=SeedlessStore), ("G10",)),
}
