"""One rank: how it is built, and what ranks above 0 do until they are told to stop.

Used alike by every executor. An executor starts the ranks, has each `build_rank`, waits for all
of them, lets rank 0 choose `num_blocks`, then gives that number to `follow` on ranks 1.. and to
a `Leader` on rank 0. Waiting for the load is the executor's, by its own channel, so that no
collective has to outlast a slow disk.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch

from moss_tp.config import ModelConfig
from moss_tp.engine.running.batch import Batch
from moss_tp.engine.running.model_runner import ModelRunner
from moss_tp.engine_config import EngineConfig
from moss_tp.model import load_model
from moss_tp.parallel.tp_group import TPGroup


class Op(IntEnum):
    """First int of every control message."""

    STOP = 0
    STEP = 1
    HEARTBEAT = 2


@dataclass(frozen=True)
class RankSpec:
    """All that a rank must know. `address` is where rank 0 listens (unused when alone)."""

    config: EngineConfig
    rank: int
    device: str
    address: tuple[str, int]


def build_rank(spec: RankSpec) -> ModelRunner:
    """Joins the group and loads this rank's shard; the KV cache is still to be allocated.

    All ranks must be in here at the same time: joining waits for the others.
    """
    config = spec.config
    group = _join(spec)
    model_config = ModelConfig.from_dir(config.model)
    dtype: torch.dtype = getattr(torch, config.dtype)
    model = load_model(config.model, model_config, group, dtype)
    cache_dtype: torch.dtype = getattr(torch, config.cache_dtype)
    return ModelRunner(model, model_config, group, config.block_size, cache_dtype)


def follow(runner: ModelRunner, num_blocks: int) -> None:
    """The loop of a rank above 0: returns when rank 0 says STOP, raises when it is gone."""
    runner.allocate(num_blocks)
    group = runner.group
    while True:
        op, *payload = group.broadcast_ints(None)
        if op == Op.STOP:
            return
        if op == Op.STEP:
            runner.run(Batch.from_ints(payload), ())


def step_message(batch: Batch) -> list[int]:
    return [Op.STEP, *batch.to_ints().tolist()]


def _join(spec: RankSpec) -> TPGroup:
    config = spec.config
    if config.tp_size == 1:
        return TPGroup.single(spec.device)
    return TPGroup.join(spec.rank, config.tp_size, spec.address, spec.device, config.step_timeout_s)
