"""A rank above 0 as a Ray actor. It knows only its own spec; rank 0 leads it by collectives."""

import os

import torch

from moss_tp.engine.config import EngineConfig
from moss_tp.engine.model_runner import ModelRunner
from moss_tp.engine.worker import RankSpec, build_rank, follow


class TPWorker:
    """Built, then following. A call that fails tells rank 0 that the group is broken."""

    def __init__(self) -> None:
        self._runner: ModelRunner | None = None

    def pid(self) -> int:
        return os.getpid()

    def build(self, spec: RankSpec) -> None:
        """Joins the group and loads this rank's shard; rank 0 must be building too."""
        use_fair_threads(spec.config)
        self._runner = build_rank(spec)

    def follow(self, num_blocks: int) -> None:
        """Runs steps until rank 0 says stop. While the group is whole this does not return."""
        if self._runner is None:
            raise RuntimeError("follow before build")
        follow(self._runner, num_blocks)


def use_fair_threads(config: EngineConfig) -> None:
    """Splits this machine's cores between the ranks; more threads than cores is slower.

    Ray would leave each actor with as many threads as its logical CPUs, which is one.
    """
    if config.device == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // config.tp_size))
