"""A model replica on a fake engine: streams, counters, its end, and a start that fails."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from cluster.channel.inlet import Inlet
from cluster.channel.listener import Listener
from cluster.ranks.group import WorkerGroup
from cluster.routing.route import Route
from moss_tp.engine.async_engine import EngineStats
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import ConfigError, EngineDeadError, MossError, QueueFullError
from moss_tp.sampling_params import SamplingParams
from serve_app.deployments import coalescer, model
from serve_app.deployments.engine import start_engine
from serve_app.deployments.make_up import make_up_digest
from serve_app.deployments.model import RANK_LOST_STATUS, MossServer
from serve_app.deployments.progress import Progress
from serve_app.deployments.replies import Replies
from serve_app.deployments.start_up import StartUp
from serve_app.remote.packed import BEGUN, FAILED, TAKEN, unpack
from serve_app.settings import ServeSettings
from tests.support.tiny_moss import make_checkpoint

MAKE_UP = {"weights": "w"}
REQUEST = EngineRequest("r", (1, 2), SamplingParams())


@dataclass
class FakeEngine:
    """Yields one token each time, up to `num_tokens`; raises `error` after the first one."""

    error: Exception | None = None
    num_tokens: int = 1000
    requests: list[EngineRequest] = field(default_factory=list)
    is_alive: bool = True
    late_step: str | None = None
    num_aborted: int = 0
    num_closed: int = 0

    async def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta]:
        self.requests.append(request)
        try:
            for number in range(self.num_tokens):
                is_last = number + 1 == self.num_tokens
                yield TokenDelta((number,), "x", "stop" if is_last else None, 2, 0)
                await asyncio.sleep(0)
                if self.error is not None:
                    raise self.error
        except (asyncio.CancelledError, GeneratorExit):
            self.num_aborted += 1
            raise

    def stats(self) -> EngineStats:
        return EngineStats(1, 2, 3, 4, 5, 6, 7, 8)

    def expected_wait_s(self) -> float:
        return 9.5

    def close(self) -> None:
        self.num_closed += 1


class FakeGroup:
    def __init__(self) -> None:
        self.num_closed = 0

    def close(self) -> None:
        self.num_closed += 1


class LostGroup(FakeGroup):
    """A group whose workers are gone before the executor uses them."""

    @property
    def workers(self) -> NoReturn:
        raise EngineDeadError("rank 1 is gone")


def replica(engine: FakeEngine) -> MossServer:
    """A replica without its constructor, which would start ranks."""
    server = object.__new__(MossServer)
    server.__dict__.update(
        _engine=engine,
        _rank_pids=(10, 11),
        _name="one",
        _start=StartUp(),
        _progress=Progress(60),
        _replies=Replies(MAKE_UP, lambda: True),
    )
    return server


@pytest.fixture
async def inlet() -> AsyncIterator[Inlet]:
    listener = Listener()
    await listener.open()
    yield listener.inlet()
    await listener.close()


async def told(inlet: Inlet) -> list[TokenDelta]:
    """All deltas, up to the end or a failure."""
    deltas: list[TokenDelta] = []
    assert [await inlet.get(), await inlet.get()] == [TAKEN, BEGUN]
    while (packed := await inlet.get()) != FAILED:
        deltas.append(unpack(packed))
        if deltas[-1].finish_reason is not None:
            break
    return deltas


async def test_cancelling_the_call_aborts_the_request(inlet: Inlet) -> None:
    engine = FakeEngine(num_tokens=10**9)
    call = asyncio.create_task(replica(engine).generate(REQUEST, target=inlet.target))
    assert [await inlet.get(), await inlet.get()] == [TAKEN, BEGUN]
    assert unpack(await inlet.get()).token_ids == (0,)
    assert engine.num_aborted == 0
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (engine.num_aborted, engine.requests) == (1, [REQUEST])


async def test_a_request_whose_reader_is_gone_is_aborted(inlet: Inlet) -> None:
    engine = FakeEngine(num_tokens=10**9)
    call = asyncio.create_task(replica(engine).generate(REQUEST, target=inlet.target))
    assert await inlet.get() == TAKEN
    listener: Any = inlet._forget.__self__  # type: ignore[attr-defined]
    await listener.close()
    with pytest.raises(EngineDeadError, match="nobody listens"):
        await call
    assert engine.num_aborted == 1


async def test_an_error_of_the_engine_comes_after_what_was_generated(inlet: Inlet) -> None:
    with pytest.raises(QueueFullError, match="full"):
        await replica(FakeEngine(QueueFullError("full"))).generate(REQUEST, target=inlet.target)
    assert [delta.text for delta in await told(inlet)] == ["x"]


async def test_another_make_up_goes_on_with_no_reply(inlet: Inlet) -> None:
    engine = FakeEngine()
    own = make_up_digest(MAKE_UP)
    await replica(engine).generate(REQUEST, target=inlet.target, route=Route(make_up=own))
    with pytest.raises(EngineDeadError, match="another reply"):
        await replica(engine).generate(REQUEST, target=inlet.target, route=Route(make_up="x"))


@pytest.mark.parametrize(("interval_s", "num_messages"), [(0.0, 1000), (60.0, 2)])
async def test_a_request_says_how_long_its_tokens_may_wait(
    inlet: Inlet, interval_s: float, num_messages: int
) -> None:
    request = replace(REQUEST, delta_interval_s=interval_s)
    await replica(FakeEngine()).generate(request, target=inlet.target)
    messages = await told(inlet)
    assert len(messages) == num_messages
    assert [i for each in messages for i in each.token_ids] == [*range(1000)]


async def test_each_stream_counts_on_the_way_that_all_share(
    inlet: Inlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescer, "MESSAGE_S", 60.0)
    monkeypatch.setattr(coalescer, "MAX_SHARED_S", 60.0)
    request = replace(REQUEST, delta_interval_s=1e-9)
    await replica(FakeEngine()).generate(request, target=inlet.target)
    assert len(await told(inlet)) == 2


async def test_stats_name_all_processes() -> None:
    stats = await replica(FakeEngine()).stats()
    assert stats["rank_pids"] == (10, 11)
    assert (stats["replica"], stats["state"]) == ("one", "serving")
    assert (stats["running"], stats["waiting"], stats["steps"]) == (1, 2, 5)
    assert stats["expected_wait_s"] == 9.5


def test_a_drained_replica_closes_its_engine() -> None:
    engine = FakeEngine()
    server = replica(engine)
    del server
    assert engine.num_closed == 1


def test_a_replica_that_did_not_start_has_nothing_to_close() -> None:
    object.__new__(MossServer).__del__()


def test_a_lost_rank_ends_the_process_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(status: int) -> NoReturn:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit, match=str(RANK_LOST_STATUS)):
        model._leave("rank 1 is gone")
    assert "rank 1 is gone" in capsys.readouterr().err


def start(model: Path, group: FakeGroup, tp: int = 1) -> None:
    settings = ServeSettings(model=str(model), store="redis://localhost", tp=tp)
    start_engine(settings, cast(WorkerGroup, group), lambda reason: None, StartUp())


def test_a_missing_model_closes_the_group(tmp_path: Path) -> None:
    group = FakeGroup()
    with pytest.raises(MossError, match=r"config\.json"):
        start(tmp_path, group)
    assert group.num_closed == 1


def test_a_tp_that_does_not_divide_the_model_closes_the_group(tmp_path: Path) -> None:
    group = FakeGroup()
    with pytest.raises(ConfigError, match="3"):
        start(make_checkpoint(tmp_path), group, tp=3)
    assert group.num_closed == 1


def test_a_group_that_cannot_start_its_ranks_is_closed(tmp_path: Path) -> None:
    """Here the executor fails; it closes the group too, which may be closed twice."""
    group = LostGroup()
    with pytest.raises(EngineDeadError, match="rank 1 is gone"):
        start(make_checkpoint(tmp_path), group)
    assert group.num_closed >= 1
