"""The model behind a deployment handle: one replica is one tensor-parallel group.

Rank 0 lives in this process, the others are actors in the replica's placement group. A group that
has lost a rank is of no use to anybody, so the process ends at once and Serve starts a new one.
It knows token ids and deltas, no chats.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from cluster.ray_executor import RayExecutor
from moss_tp.config import ModelConfig, resolve_model
from moss_tp.engine.async_engine import AsyncEngine, EngineStats
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.outputs import TokenDelta
from moss_tp.errors import EngineDeadError
from moss_tp.sampling_params import SamplingParams
from moss_tp.tokenizer import Tokenizer
from serve_app.coalesce import coalesce
from serve_app.settings import ServeSettings
from serve_app.step_watch import StepWatch

RANK_LOST_STATUS = 13


@dataclass(frozen=True)
class ReplicaStats:
    """One replica as `/stats` shows it; `rank_pids` begins with rank 0, the replica itself."""

    rank_pids: tuple[int, ...]
    engine: EngineStats


class MossServer:
    """A replica. Constructing it loads the model on every rank."""

    async def __init__(self, settings: ServeSettings) -> None:
        self._engine, self._rank_pids = await asyncio.to_thread(_start, settings)
        config = settings.engine_config(settings.model)
        self._watch = StepWatch(config.step_timeout_s)

    async def generate(
        self, request_id: str, prompt_ids: Sequence[int], params: SamplingParams
    ) -> AsyncIterator[TokenDelta]:
        """Deltas of one request, coalesced; a caller that leaves aborts it within one step.

        Raises what `AsyncEngine.generate` raises.
        """
        async for delta in coalesce(self._engine.generate(request_id, prompt_ids, params)):
            yield delta

    async def check_health(self) -> None:
        """Serve's question, and `/health`'s: EngineDeadError when nothing can be generated."""
        if not self._engine.is_alive:
            raise EngineDeadError("the engine has ended")
        self._watch.check(self._engine.stats(), time.monotonic())

    async def stats(self) -> ReplicaStats:
        return ReplicaStats(self._rank_pids, self._engine.stats())

    def __del__(self) -> None:
        """Serve calls it when a replica has drained: the ranks get to stop in order."""
        if hasattr(self, "_engine"):
            self._engine.close()


def _start(settings: ServeSettings) -> tuple[AsyncEngine, tuple[int, ...]]:
    directory = str(resolve_model(settings.model))
    model = ModelConfig.from_dir(directory)
    config = settings.engine_config(directory).resolve(model)
    tokenizer = Tokenizer.from_dir(directory)
    executor = RayExecutor(config)
    executor.watch(_leave)
    engine = LLMEngine(config, executor, tokenizer, model)
    return AsyncEngine(engine), (os.getpid(), *executor.rank_pids)


def _leave(reason: str) -> NoReturn:
    """The only way out of a broken group: other ranks may hang in a collective for ever."""
    print(f"leaving, for Serve to start a new group: {reason}", file=sys.stderr, flush=True)
    os._exit(RANK_LOST_STATUS)
