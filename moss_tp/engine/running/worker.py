"""One rank: how it is built, and the loop of the ranks above 0.

The same for every executor. An executor starts the ranks, has each of them `build_rank`, waits
for all, has ranks above 0 `prepare` while rank 0 chooses `num_blocks`, then passes that number to
`worker_loop` on ranks above 0 and to a `Driver` on rank 0. It waits for loading over a channel of
its own, so that no collective has to outlast a slow disk.

    control message:  STOP | HEARTBEAT | the ints of a step's Batch, whose first is neither

A heartbeat is answered by a barrier.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from moss_tp.accelerator.base import Accelerator
from moss_tp.accelerator.choose import accelerator_of
from moss_tp.config import ModelConfig
from moss_tp.engine.graphs.wait import wait_for
from moss_tp.engine.running.model_runner import ModelRunner
from moss_tp.engine.running.runner import PendingStep, Runner
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.layers.offload import Offload
from moss_tp.model import load_model
from moss_tp.parallel.tp_group import TPGroup

STOP = np.array([0])
HEARTBEAT = np.array([-1])
# Rank 0 ends a group that is stuck much sooner; this is for a rank that it has lost.
LIMIT_S = 600


@dataclass(frozen=True)
class RankSpec:
    """All that a rank must know. `address` is where rank 0 listens (unused by a single rank).

    `device` "cpu" with a config for "cuda" computes the GPU's steps on the CPU. `accelerator`
    replaces the device's own; it cannot be sent to another process.
    """

    config: EngineConfig
    rank: int
    device: str
    address: tuple[str, int]
    num_threads: int
    accelerator: Accelerator | None = None


def build_rank(spec: RankSpec) -> Runner:
    """Joins the group and loads this rank's shard; the KV cache is not allocated yet.

    All ranks must be in here at the same time: joining waits for the others. Sets the number of
    torch's threads in this process.
    """
    config = spec.config
    torch.set_num_threads(spec.num_threads)
    group = _join(spec)
    model_config = ModelConfig.from_dir(config.model)
    dtype: torch.dtype = getattr(torch, config.dtype)
    if config.device == "cuda":
        # Its kernels need Triton.
        from moss_tp.engine.graphs.build import build_graph_runner

        # Before loading: what loads the weights is in order with the steps then.
        accelerator = spec.accelerator or accelerator_of(group.device)
        model = load_model(
            config.model,
            model_config,
            group,
            dtype,
            back_end="cuda",
            load_format=config.load_format,
            lm_head_bits=config.lm_head_bits,
            offload=Offload(config.offload_bytes, accelerator) if config.offload_bytes else None,
        )
        return build_graph_runner(model, model_config, group, config, accelerator)
    model = load_model(
        config.model,
        model_config,
        group,
        dtype,
        load_format=config.load_format,
        lm_head_bits=config.lm_head_bits,
    )
    cache_dtype: torch.dtype = getattr(torch, config.cache_dtype)
    return ModelRunner(model, model_config, group, config.block_size, cache_dtype)


def worker_loop(runner: Runner, num_blocks: int) -> None:
    """Runs rank 0's steps. Returns when rank 0 says STOP; raises when it is gone, or when a step
    holds up the next one for more than LIMIT_S seconds."""
    runner.allocate(num_blocks)
    in_flight: deque[PendingStep] = deque()
    while True:
        message = runner.group.broadcast_ints(None)
        if message[0] == STOP[0]:
            return
        if message[0] == HEARTBEAT[0]:
            runner.group.barrier()
            continue
        if len(in_flight) == runner.max_in_flight:
            _finish(in_flight.popleft())
        in_flight.append(runner.launch(Batch(message), ()))


def _finish(step: PendingStep) -> None:
    wait_for(step.is_done, LIMIT_S)
    step.tokens()


def _join(spec: RankSpec) -> TPGroup:
    config = spec.config
    if config.tp_size == 1:
        return TPGroup.single(spec.device)
    return TPGroup.join(spec.rank, config.tp_size, spec.address, spec.device, config.step_limit_s)
