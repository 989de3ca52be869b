"""The health check of a replica, on a fake engine."""

from dataclasses import dataclass, field

import pytest

from cluster.scaling.policy import Load
from moss_tp.engine.async_engine import EngineStats
from moss_tp.engine.load import EngineLoad
from moss_tp.errors import EngineDeadError
from serve_app.deployments.model import MossServer
from serve_app.deployments.progress import Progress
from serve_app.groups import GroupState


@dataclass
class FakeEngine:
    is_alive: bool = True
    running: int = 0
    late_step: str | None = None
    closed: list[bool] = field(default_factory=list)

    def stats(self) -> EngineStats:
        return EngineStats(self.running, 0, 8, 8, 5, 0, 0, 0)

    def load(self) -> EngineLoad:
        return EngineLoad(2, 1.5, 2.5, 3, 8, 4)

    def close(self) -> None:
        self.closed.append(True)


class FakePublisher:
    def start(self) -> None:
        pass

    def end(self) -> None:
        pass


def replica(engine: FakeEngine, limit_s: float = 60) -> MossServer:
    """A replica without its constructor, which would start ranks."""
    server = object.__new__(MossServer)
    server.__dict__.update(
        _engine=engine,
        _progress=Progress(limit_s),
        _publisher=FakePublisher(),
        _name="one",
        _rank_pids=(1, 2),
    )
    return server


async def test_a_replica_with_a_closed_engine_is_unhealthy() -> None:
    engine = FakeEngine()
    server = replica(engine)
    await server.check_health()
    engine.is_alive = False
    with pytest.raises(EngineDeadError):
        await server.check_health()


async def test_a_replica_with_a_late_step_is_unhealthy_until_it_ends() -> None:
    engine = FakeEngine()
    server = replica(engine)
    assert await server.state() == GroupState("serving", "one", 2)
    engine.late_step = "a step has not ended for 3 s"
    with pytest.raises(EngineDeadError, match="for 3 s"):
        await server.check_health()
    assert await server.state() == GroupState("failed", "one", 2)
    engine.late_step = None
    await server.check_health()


async def test_a_replica_with_a_hanging_step_is_unhealthy() -> None:
    server = replica(FakeEngine(running=1), limit_s=0)
    await server.check_health()
    with pytest.raises(EngineDeadError):
        await server.check_health()


async def test_a_replica_says_what_it_has_to_do() -> None:
    said = await replica(FakeEngine()).record_autoscaling_stats()
    assert Load(**said) == Load(2, 1.5, 2.5, 3, 8, 4)
