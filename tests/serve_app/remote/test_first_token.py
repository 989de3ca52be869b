import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError, QueueFullError
from serve_app.groups import ASLEEP, SILENT, GroupState
from serve_app.remote import first_token
from serve_app.remote.first_token import FirstToken


class Model:
    """Raises `errors` one after the other, then answers; or `hangs`."""

    def __init__(self, *errors: Exception, hangs: bool = False) -> None:
        self.errors = list(errors)
        self.hangs = hangs
        self.requests: list[EngineRequest] = []

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncGenerator[TokenDelta]:
        self.requests.append(request)
        if self.hangs:
            await asyncio.sleep(300)
        if self.errors:
            raise self.errors.pop(0)
        yield TokenDelta((1,), "a", "length", 1, 0)


async def up() -> tuple[GroupState, ...]:
    return SILENT, GroupState("serving", "one", 1)


async def down() -> tuple[GroupState, ...]:
    return SILENT, GroupState("failed", "one", 1)


async def asleep() -> tuple[GroupState, ...]:
    return (ASLEEP,)


@pytest.mark.parametrize(("groups", "is_ready"), [(down, False), (asleep, True)])
async def test_no_replica_is_started_for_it(
    groups: Callable[[], Awaitable[tuple[GroupState, ...]]], is_ready: bool
) -> None:
    model = Model()
    assert await FirstToken(model, groups).has_come() == is_ready
    assert model.requests == []


async def test_one_token_is_enough() -> None:
    model = Model()
    first = FirstToken(model, up)
    assert [await first.has_come() for _ in range(3)] == [True] * 3
    (request,) = model.requests
    assert (len(request.prompt_ids), request.params.max_tokens) == (1, 1)


async def test_it_asks_again_until_one_has_come() -> None:
    model = Model(EngineDeadError("none is up"))
    first = FirstToken(model, up)
    assert not await first.has_come()
    assert await first.has_come()
    assert len({request.request_id for request in model.requests}) == 2


async def test_a_full_queue_is_an_answer() -> None:
    assert await FirstToken(Model(QueueFullError("full")), up).has_come()


async def test_whoever_asks_waits_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_token, "WAIT_S", 0.01)
    monkeypatch.setattr(first_token, "LIMIT_S", 0.05)
    model = Model(hangs=True)
    first = FirstToken(model, up)
    assert [await first.has_come() for _ in range(2)] == [False] * 2
    assert len(model.requests) == 1, "one at a time"
    await asyncio.sleep(0.1)
    model.hangs = False
    assert await first.has_come()
    first.close()
