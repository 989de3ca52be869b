"""Records of live turns that another version has written, or that nobody can run."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from serve_app.live.record import VERSION, LiveTurn, pack_turn, unpack_turn
from serve_app.sessions.keys import session_keys
from tests.serve_app.live.ingresses import PARAMS, Ingresses
from tests.support.chat_fakes import FakeModel

TURN = LiveTurn(
    "uid", "ann", "id", "key", "print", "hi", "", 0, (1, 2), 1, 0, PARAMS, ("calculator",), 99
)


def changed(packed: bytes, change: Mapping[str, Any]) -> bytes:
    made: bytes = msgpack.packb({**msgpack.unpackb(packed), **change})
    return made


def test_fields_of_another_version_are_ignored() -> None:
    params = {**asdict(PARAMS), "new": 1}
    packed = changed(pack_turn(TURN), {"new": {"a": [1]}, "params": params})
    assert unpack_turn(packed) == unpack_turn(pack_turn(TURN)) == TURN


@pytest.mark.parametrize("change", [{"version": VERSION + 1}, {"params": None}])
def test_what_cannot_be_ignored_is_an_error(change: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="record of a live turn"):
        unpack_turn(changed(pack_turn(TURN), change))


@pytest.mark.parametrize("change", [{"version": VERSION + 1}, {"parent": "nowhere"}])
async def test_a_turn_that_cannot_be_taken_up_is_given_up(
    ingresses: Ingresses, change: Mapping[str, Any]
) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.Event().wait()

    first, uid = ingresses.add(FakeModel(wait=hang)), await ingresses.session()
    started = await first.start(uid)
    await first.die()
    (live,) = session_keys(uid, f"live:{started.id}")
    async with Redis.from_url(ingresses.url) as redis:
        packed: Any = await redis.hget(live, "turn")
        await redis.hset(live, "turn", changed(packed, change))
    second = ingresses.add()
    async with asyncio.timeout(20):
        *_, end = await second.read(started)
    assert end.kind == "error" and end.data["error"]["type"] == "EngineDeadError"
    await second.read(await second.start(uid))
    assert len((await ingresses.load(uid)).tree) == 1, "the session is free"
