"""One rank: how it is built, and the loop of the ranks above 0.

The same for every executor. An executor starts the ranks, has each of them `build_rank`, waits
for all, lets rank 0 choose `num_blocks`, then passes that number to `worker_loop` on ranks above
0 and to a `Driver` on rank 0. It waits for loading over a channel of its own, so that no
collective has to outlast a slow disk.

    control message:  STOP | HEARTBEAT | the ints of a step's Batch, whose first is positive

A heartbeat is answered by a barrier.
"""

from dataclasses import dataclass

import numpy as np
import torch

from moss_tp.config import ModelConfig
from moss_tp.engine.running.model_runner import ModelRunner
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.model import load_model
from moss_tp.parallel.tp_group import TPGroup

STOP = np.array([0])
HEARTBEAT = np.array([-1])


@dataclass(frozen=True)
class RankSpec:
    """All that a rank must know. `address` is where rank 0 listens (unused by a single rank)."""

    config: EngineConfig
    rank: int
    device: str
    address: tuple[str, int]
    num_threads: int


def build_rank(spec: RankSpec) -> ModelRunner:
    """Joins the group and loads this rank's shard; the KV cache is not allocated yet.

    All ranks must be in here at the same time: joining waits for the others. Sets the number of
    torch's threads in this process.
    """
    config = spec.config
    torch.set_num_threads(spec.num_threads)
    group = _join(spec)
    model_config = ModelConfig.from_dir(config.model)
    dtype: torch.dtype = getattr(torch, config.dtype)
    model = load_model(config.model, model_config, group, dtype)
    cache_dtype: torch.dtype = getattr(torch, config.cache_dtype)
    return ModelRunner(model, model_config, group, config.block_size, cache_dtype)


def worker_loop(runner: ModelRunner, num_blocks: int) -> None:
    """Runs rank 0's steps. Returns when rank 0 says STOP, raises when it is gone."""
    runner.allocate(num_blocks)
    while True:
        message = runner.group.broadcast_ints(None)
        if message[0] == STOP[0]:
            return
        if message[0] == HEARTBEAT[0]:
            runner.group.barrier()
        else:
            runner.run(Batch(message), ())


def _join(spec: RankSpec) -> TPGroup:
    config = spec.config
    if config.tp_size == 1:
        return TPGroup.single(spec.device)
    return TPGroup.join(spec.rank, config.tp_size, spec.address, spec.device, config.step_limit_s)
