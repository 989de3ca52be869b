"""What the long forms do with streamed turns on a real server, and how they look at its store."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from redis.asyncio import Redis

from serve_app.sessions.keys import session_keys
from tests.proof.history.asking import Asker
from tests.proof.history.record import Act, Record, Stream
from tests.proof.server import DigestProcess

READ_S = 120.0


def asker_of(server: DigestProcess, http: httpx.AsyncClient) -> Asker:
    return Asker(http, lambda: server.url, "ann", server.api_keys["ann"], Record(), read_s=READ_S)


@dataclass(frozen=True)
class Left:
    """A turn that was begun and that nobody asks for any more."""

    act: Act
    turn: str


async def begin_and_leave(asker: Asker, number: int) -> Left:
    """Starts the first turn of a session with the key that `stream_turns` has for that number, and
    closes the connection once the turn has an id."""
    uid = (await asker.ask("POST", "/v1/sessions", json={})).json()["id"]
    act = Act(asker.tenant, "turn", f"key-{number:012}", f"canary {number}", uid)
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(_: int, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "turn":
            told.set_result(str(data["id"]))

    body = {"user": act.user, "stream": True}
    path = f"/v1/sessions/{uid}/turns"
    reading = asyncio.create_task(asker.follow("POST", path, act.key, on_event=note, json=body))
    either: set[asyncio.Future[Any]] = {reading, told}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not told.done():
        await reading  # raises why it was refused
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    return Left(act, told.result())


async def record_of(store: str, uid: str, turn: str) -> dict[str, str]:
    """The live record of a turn, as the store has it; nothing of the server is asked."""
    async with Redis.from_url(store) as redis:
        names = "state", "attempts", "token"
        (key,) = session_keys(uid, f"live:{turn}")
        found: Any = await redis.hmget(key, names)
        pairs = zip(names, found, strict=True)
        return {name: value.decode() for name, value in pairs if value is not None}


async def all_ended(store: str, turns: Sequence[Left], within_s: float) -> list[str]:
    """Waits for the ends of turns; returns the ids of those that have none in that time."""
    until = time.monotonic() + within_s
    while True:
        records = [await record_of(store, each.act.uid or "", each.turn) for each in turns]
        open_ = [t.turn for t, r in zip(turns, records, strict=True) if r.get("state") != "ended"]
        if not open_ or time.monotonic() > until:
            return open_
        await asyncio.sleep(0.25)


def num_repeated(streams: Sequence[Stream]) -> int:
    """Events that one response told twice."""
    numbers = [[number for number, _, _ in stream.events if number >= 0] for stream in streams]
    return sum(len(each) - len(set(each)) for each in numbers)
