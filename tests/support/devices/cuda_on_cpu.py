"""An engine for device "cuda" that computes on the CPU: the same code up to the kernels' wrappers,
which run their torch references."""

from dataclasses import replace

from moss_tp.accelerator.base import Accelerator
from moss_tp.engine.running.local_executor import LocalExecutor
from moss_tp.engine.running.worker import RankSpec
from moss_tp.engine_config import EngineConfig


class CudaOnCpu(LocalExecutor):
    """Rank 0 has `accelerator`; other ranks, and rank 0 without one, have the CPU's."""

    def __init__(self, config: EngineConfig, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        super().__init__(config)

    def _spec(self, rank: int, port: int) -> RankSpec:
        accelerator = self._accelerator if rank == 0 else None
        return replace(super()._spec(rank, port), device="cpu", accelerator=accelerator)
