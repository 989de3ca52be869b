"""A model replica on a fake engine: streams, counters, its end, and a start that fails."""

import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, cast

import pytest

from cluster.ranks.group import WorkerGroup
from moss_tp.engine.async_engine import EngineStats
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import ConfigError, EngineDeadError, MossError, QueueFullError
from moss_tp.sampling_params import SamplingParams
from serve_app.deployments import model
from serve_app.deployments.engine import start_engine
from serve_app.deployments.model import RANK_LOST_STATUS, MossServer
from serve_app.deployments.progress import Progress
from serve_app.remote.packed import unpack
from serve_app.settings import ServeSettings
from tests.support.tiny_moss import make_checkpoint

REQUEST = EngineRequest("r", (1, 2), SamplingParams())


@dataclass
class FakeEngine:
    """Yields one token each time; raises `error` after the first one."""

    error: Exception | None = None
    requests: list[EngineRequest] = field(default_factory=list)
    is_alive: bool = True
    late_step: str | None = None
    num_aborted: int = 0
    num_closed: int = 0

    async def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta]:
        self.requests.append(request)
        try:
            for number in range(1000):
                yield TokenDelta((number,), "x", None, 2, 0)
                if self.error is not None:
                    raise self.error
        except GeneratorExit:
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
    server.__dict__.update(_engine=engine, _rank_pids=(10, 11), _name="one", _progress=Progress(60))
    return server


async def test_closing_the_stream_aborts_the_request() -> None:
    engine = FakeEngine()
    deltas = cast(AsyncGenerator[bytes], replica(engine).generate(REQUEST))
    assert unpack(await anext(deltas)).token_ids == (0,)
    assert engine.num_aborted == 0
    await deltas.aclose()
    assert (engine.num_aborted, engine.requests) == (1, [REQUEST])


async def test_an_error_of_the_engine_comes_after_what_was_generated() -> None:
    deltas = replica(FakeEngine(QueueFullError("full"))).generate(REQUEST)
    texts: list[str] = []
    with pytest.raises(QueueFullError, match="full"):
        async for delta in deltas:
            texts.append(unpack(delta).text)
    assert texts == ["x"]


@pytest.mark.parametrize(("interval_s", "num_messages"), [(0.0, 1000), (60.0, 2)])
async def test_a_request_says_how_long_its_tokens_may_wait(
    interval_s: float, num_messages: int
) -> None:
    request = replace(REQUEST, delta_interval_s=interval_s)
    messages = [unpack(each) async for each in replica(FakeEngine()).generate(request)]
    assert len(messages) == num_messages
    assert [i for each in messages for i in each.token_ids] == [*range(1000)]


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
    start_engine(settings, cast(WorkerGroup, group), lambda reason: None)


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
