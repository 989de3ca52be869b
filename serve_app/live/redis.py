"""Live turns in Redis or Valkey: a hash and a list a turn, one Lua script a step.

The events of all turns of an ingress are written over one connection, its readers follow over
another one; neither waits for steps of single turns, nor those for sessions.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from serve_app.chat.resume import TimedOutput, TurnTakenOverError, pack_output, unpack_output
from serve_app.live import scripts
from serve_app.live.answers import events_of, given_up_of, standing_of, taken_up_of
from serve_app.live.event import LiveEvent, Telling, pack
from serve_app.live.record import (
    Hold,
    LiveTurn,
    digest_of,
    pack_ticket,
    pack_turn,
)
from serve_app.live.store import (
    MAX_TAKE_UPS,
    Append,
    Ask,
    Cancel,
    GivenUp,
    Polled,
    Round,
    Standing,
    TakenUp,
)
from serve_app.sessions.keys import (
    GONE,
    SENT,
    holder,
    result_field,
    results_of,
    sent_call,
    session_keys,
)
from serve_app.sessions.store import Lease
from serve_app.store.patient_lane import PatientLane
from serve_app.store.script import Arg, Script

_RUNNING, _INGRESSES, _CANCELS = "moss:running", "moss:ingresses", "moss:cancels"
_NUM_STEP_CONNECTIONS = 8
_MAX_ORPHANS = 64


@dataclass(frozen=True)
class LiveSettings:
    """Times in seconds. A turn that was not renewed for `hold_s` may be taken up.

    Its session is locked for `lease_s` after the last renewal, since a take-up may take a while.
    Events are kept for `keep_s` after the end of a turn; before it, for `running_s` at most. An
    ingress counts as there for `here_s` after it was last heard of. A turn waits `grace_s` for one
    of its own make-up.
    """

    hold_s: float = 3
    lease_s: float = 600
    keep_s: float = 600
    running_s: float = 24 * 3600
    here_s: float = 3
    grace_s: float = 5
    answer_timeout_s: float = 2
    patience_s: float = 6


class RedisLiveStore:
    """A LiveStore on the URL of the session store. Raises ConfigError for an invalid URL."""

    def __init__(self, url: str, settings: LiveSettings | None = None) -> None:
        self.settings = settings = settings or LiveSettings()
        times = settings.answer_timeout_s, settings.patience_s
        self._writes, self._polls, self._rounds = (PatientLane(url, 1, *times) for _ in range(3))
        self._steps = PatientLane(url, _NUM_STEP_CONNECTIONS, *times)
        self._lanes = (self._writes, self._polls, self._rounds, self._steps)

    async def close(self) -> None:
        for lane in self._lanes:
            await lane.close()

    async def start(self, hold: Hold, lease: Lease, first: Telling, deadline: float) -> None:
        turn, settings = hold.turn, self.settings
        keys = _keys(turn, "", "events", lease=True, extras=True)
        spans = deadline - time.monotonic(), settings.hold_s, settings.lease_s, settings.running_s
        who: tuple[Arg, ...] = holder(lease), holder(hold.lease), hold.token, turn.owner, turn.key
        what: tuple[Arg, ...] = pack_turn(turn), pack(first), *map(_ms, spans)
        args = *who, *what, digest_of(turn.made_by), pack_ticket(turn.ticket)

        def run(pipeline: Pipeline) -> None:
            # First, so that no turn runs of which nobody would learn.
            scripts.HINT.queue(pipeline, [_RUNNING], _member(turn), _ms(settings.hold_s))
            scripts.START.queue(pipeline, keys, *args)

        _, is_started = await self._steps.run(_pipelined(run), self._until(deadline))
        if not is_started:
            raise TurnTakenOverError("another turn of this session was started")

    async def append(self, appends: Sequence[Append]) -> list[Standing]:
        def run(pipeline: Pipeline) -> None:
            for each in appends:
                keys = _keys(each.hold.turn, "", "events")
                scripts.APPEND.queue(pipeline, keys, each.hold.token, each.start, *each.events)

        return [standing_of(r) for r in await self._writes.run(_pipelined(run), self._until())]

    async def poll(self, asks: Sequence[Ask], holds: Sequence[Hold]) -> Polled:
        def run(pipeline: Pipeline) -> None:
            pipeline.get(_CANCELS)
            for ask in asks:
                _queue_read(pipeline, ask)
            for hold in holds:
                scripts.STANDING.queue(pipeline, _keys(hold.turn, ""), hold.token)

        num_cancels, *results = await self._polls.run(_pipelined(run), self._until())
        answers = [events_of(r, ask.start) for r, ask in zip(results, asks, strict=False)]
        standings = [standing_of(r) for r in results[len(asks) :]]
        return Polled(answers, standings, int(num_cancels or 0))

    async def read(self, ask: Ask, deadline: float = inf) -> tuple[LiveEvent, ...] | None:
        (found,) = await self._steps.run(
            _pipelined(lambda pipeline: _queue_read(pipeline, ask)), self._until(deadline)
        )
        return events_of(found, ask.start)

    async def running(self, uid: str, owner: str) -> str | None:
        keys = session_keys(uid, "lease", "meta", GONE, "extras")
        key = await self._run(scripts.RUNNING, keys, owner)
        return None if key is None else str(key.decode().rpartition(":")[2])

    async def patrol(self, ingress: str, holds: Sequence[Hold], is_leaving: bool) -> Round:
        settings = self.settings
        hold_ms, lease_ms = _ms(settings.hold_s), _ms(settings.lease_s)
        members = [_member(hold.turn) for hold in holds]
        spans = hold_ms, _ms(settings.here_s), _MAX_ORPHANS

        def run(pipeline: Pipeline) -> None:
            for hold in holds:
                keys = _keys(hold.turn, "", lease=True)
                args = hold.token, holder(hold.lease), hold_ms, lease_ms
                scripts.RENEW.queue(pipeline, keys, *args)
            keys = [_RUNNING, _INGRESSES]
            scripts.PATROL.queue(pipeline, keys, ingress, int(is_leaving), *spans, *members)

        *renewed, (num_others, orphans) = await self._rounds.run(_pipelined(run), self._until())
        await self._look_again([m for m, r in zip(members, renewed, strict=True) if not r[0]])
        pairs = (member.decode().split(":") for member in orphans)
        return Round(tuple((uid, turn_id) for uid, turn_id in pairs), num_others)

    async def _look_again(self, lost: Sequence[str]) -> None:
        """So that turns which were handed over, while they were renewed, are found at once."""

        def run(pipeline: Pipeline) -> None:
            for member in lost:
                scripts.HINT.queue(pipeline, [_RUNNING], member, 0)

        if lost:
            await self._rounds.run(_pipelined(run), self._until())

    async def take_up(
        self, uid: str, turn_id: str, token: str, given_up: Telling, made: str = ""
    ) -> TakenUp | GivenUp | None:
        own = f"live:{turn_id}", f"live:{turn_id}:events"
        names = *own, "lease", "meta", GONE, "extras", "ids"
        keys, member = session_keys(uid, *names), f"{uid}:{turn_id}"
        hold_ms, lease_ms = _ms(self.settings.hold_s), _ms(self.settings.lease_s)
        end = _ms(self.settings.keep_s), turn_id, MAX_TAKE_UPS, pack(given_up)
        args = hold_ms, lease_ms, *end, made, _ms(self.settings.grace_s)
        state, *result = await self._run(scripts.TAKE_UP, keys, token, *args)
        if state in (b"none", b"given up"):
            await self._steps.run(lambda redis: redis.zrem(_RUNNING, member), self._until())
            return given_up_of(*result) if result else None
        await self._run(scripts.HINT, [_RUNNING], member, hold_ms)
        return taken_up_of(token, *result) if state == b"taken" else None

    async def hand_over(self, hold: Hold, pause_s: float, is_failure: bool) -> None:
        keys, pause_ms = _keys(hold.turn, ""), _ms(pause_s)
        args = hold.token, pause_ms, "failed" if is_failure else "handed"

        def run(pipeline: Pipeline) -> None:
            scripts.HAND_OVER.queue(pipeline, keys, *args)
            scripts.HINT.queue(pipeline, [_RUNNING], _member(hold.turn), pause_ms)

        await self._steps.run(_pipelined(run), self._until())

    async def end(self, hold: Hold, number: int, last: Telling, deadline: float = inf) -> None:
        keys = _keys(hold.turn, "", "events", lease=True, extras=True)
        args = hold.token, number, pack(last), _ms(self.settings.keep_s)
        _check(await self._run(scripts.END, keys, *args, deadline=deadline))
        # A hint that is left over is found and dropped by whoever looks next.
        await self._steps.run(
            lambda redis: redis.zrem(_RUNNING, _member(hold.turn)), self._until(deadline)
        )

    async def cancel(self, ask: Ask, cancel: Cancel) -> Cancel:
        keys = session_keys(ask.uid, f"live:{ask.id}", "meta", GONE)
        stands: Cancel = (await self._run(scripts.CANCEL, keys, ask.owner, cancel)).decode()
        if stands:  # else there is no such turn
            await self._steps.run(lambda redis: redis.incr(_CANCELS), self._until())
        return stands

    async def owner_of(self, uid: str) -> str | None:
        (meta,) = session_keys(uid, "meta")
        owner: Any = await self._steps.run(
            lambda redis: redis.hget(meta, "owner"),
            self._until(),
        )
        return None if owner is None else str(owner.decode())

    async def find(self, hold: Hold, call_id: str) -> TimedOutput | None:
        args = hold.token, result_field(call_id)
        is_held, *found = await self._run(scripts.FIND, _result_keys(hold.turn), *args)
        _check(is_held)
        return None if found[0] is None else unpack_output(found[0])

    async def claim(self, hold: Hold, call_id: str, deadline: float) -> bool:
        keys = [*_keys(hold.turn, ""), *session_keys(hold.turn.uid, SENT, "meta")]
        field, ttl_ms = sent_call(hold.turn.key, call_id), _ms(self.settings.running_s)
        is_held, *may_send = await self._run(
            scripts.SEND, keys, hold.token, field, ttl_ms, deadline=deadline
        )
        _check(is_held)
        return bool(may_send[0])

    async def record(
        self, hold: Hold, call_id: str, output: TimedOutput, deadline: float
    ) -> TimedOutput:
        keys = [*_result_keys(hold.turn), *session_keys(hold.turn.uid, "extras")]
        args = hold.token, result_field(call_id), pack_output(output)
        is_held, *stands = await self._run(scripts.RECORD, keys, *args, deadline=deadline)
        _check(is_held)
        return unpack_output(stands[0])

    def _until(self, deadline: float = inf) -> float:
        return min(deadline, time.monotonic() + self.settings.patience_s)

    async def _run(
        self, script: Script, keys: Sequence[str], *args: Arg, deadline: float = inf
    ) -> Any:
        return await self._steps.run(
            lambda redis: script.run(redis, keys, *args), self._until(deadline)
        )


def _keys(turn: LiveTurn, *parts: str, lease: bool = False, extras: bool = False) -> list[str]:
    """The turn's own keys, then those of its session in the order of all scripts."""
    own = [f"live:{turn.id}:{part}" if part else f"live:{turn.id}" for part in parts]
    return session_keys(turn.uid, *own, *["lease"] * lease, GONE, *["extras"] * extras)


def _result_keys(turn: LiveTurn) -> list[str]:
    return [*_keys(turn, ""), *session_keys(turn.uid, results_of(turn.key))]


def _queue_read(pipeline: Pipeline, ask: Ask) -> None:
    names = f"live:{ask.id}", f"live:{ask.id}:events", "meta", GONE
    scripts.READ.queue(pipeline, session_keys(ask.uid, *names), ask.owner, ask.start)


def _pipelined(queue: Callable[[Pipeline], None]) -> Callable[[Redis], Awaitable[list[Any]]]:
    """A step that sends what `queue` queues in one round trip."""

    async def run(redis: Redis) -> list[Any]:
        async with redis.pipeline(transaction=False) as pipeline:
            queue(pipeline)
            # An error that the pipeline raises itself would quote what was told.
            results: list[Any] = await pipeline.execute(raise_on_error=False)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    return run


def _member(turn: LiveTurn) -> str:
    return f"{turn.uid}:{turn.id}"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _check(is_held: object) -> None:
    if not is_held:
        raise TurnTakenOverError("another ingress tells this turn")
