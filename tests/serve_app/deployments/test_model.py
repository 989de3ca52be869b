"""A replica's answer to `check_health`, on an engine that is written by hand."""

from dataclasses import dataclass, field

import pytest

from moss_tp.engine.async_engine import EngineStats
from moss_tp.errors import EngineDeadError
from serve_app.deployments.model import MossServer
from serve_app.deployments.step_watch import StepWatch


@dataclass
class HandEngine:
    is_alive: bool = True
    running: int = 0
    closed: list[bool] = field(default_factory=list)

    def stats(self) -> EngineStats:
        return EngineStats(self.running, 0, 8, 8, 5, 0, 0, 0)

    def close(self) -> None:
        self.closed.append(True)


def replica(engine: HandEngine, limit_s: float = 60) -> MossServer:
    """Without its constructor, which starts ranks."""
    server = object.__new__(MossServer)
    server.__dict__.update(_engine=engine, _watch=StepWatch(limit_s))
    return server


async def test_a_replica_whose_engine_ended_is_not_healthy() -> None:
    engine = HandEngine()
    server = replica(engine)
    await server.check_health()
    engine.is_alive = False
    with pytest.raises(EngineDeadError):
        await server.check_health()


async def test_a_replica_whose_step_hangs_is_not_healthy() -> None:
    server = replica(HandEngine(running=1), limit_s=0)
    await server.check_health()
    with pytest.raises(EngineDeadError):
        await server.check_health()
