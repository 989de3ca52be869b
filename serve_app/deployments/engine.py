"""A replica's engine: the model loaded on every rank, rank 0 in this process.

Apart from `moss_server` so that only a replica pays for importing torch: whoever deploys it, and
Serve's controller, do not.
"""

import os
from collections.abc import Callable

from cluster.ranks.executor import RayExecutor
from cluster.ranks.group import WorkerGroup
from moss_tp.config import ModelConfig, resolve_model
from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.tokenizer import Tokenizer
from serve_app.settings import ServeSettings


def start_engine(
    settings: ServeSettings, group: WorkerGroup, on_death: Callable[[str], None]
) -> tuple[AsyncEngine, tuple[int, ...]]:
    """The engine on the ranks of `group`, and their processes.

    `on_death` is called from any thread, even while a step hangs because a rank is gone.

    Raises ConfigError or CheckpointError.
    """
    directory = str(resolve_model(settings.model))
    model = ModelConfig.from_dir(directory)
    config = settings.engine_config(directory).resolve(model)
    tokenizer = Tokenizer.from_dir(directory)
    executor = RayExecutor(config, group)
    executor.watch(on_death)
    engine = LLMEngine(config, executor, tokenizer, model)
    return AsyncEngine(engine), (os.getpid(), *executor.rank_pids)
