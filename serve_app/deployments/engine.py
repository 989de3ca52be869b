"""A replica's engine: the model loaded on every rank, rank 0 in this process.

A module of its own, because importing it imports torch: only a replica pays for that, not the
process that deploys it and not Serve's controller.
"""

import os
from collections.abc import Callable

from cluster.ranks.executor import RayExecutor
from cluster.ranks.group import WorkerGroup
from moss_tp.config import resolve_model
from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.build import build_engine
from moss_tp.engine_config import EngineConfig
from serve_app.deployments.start_up import StartUp
from serve_app.settings import ServeSettings


def start_engine(
    settings: ServeSettings,
    group: WorkerGroup,
    on_death: Callable[[str], None],
    start: StartUp,
) -> tuple[AsyncEngine, tuple[int, ...]]:
    """The engine on the ranks of `group`, and the process ids of all ranks.

    `on_death` is called from any thread, even while a step hangs because a rank is gone. `start`
    gets the phases `weights` (other ranks' imports included) and `warm-up`.

    Raises ConfigError or CheckpointError, with the group closed.
    """

    def load(config: EngineConfig) -> RayExecutor:
        with start.phase("weights"):
            return RayExecutor(config, group)

    try:
        directory = resolve_model(settings.model, with_weights=settings.reads_weights)
        config = settings.engine_config(str(directory))
        with start.phase("warm-up"):
            engine = build_engine(config, load, on_death, is_warm=True)
    except BaseException:
        group.close()
        raise
    assert isinstance(engine.executor, RayExecutor)
    return AsyncEngine(engine), (os.getpid(), *engine.executor.rank_pids)
