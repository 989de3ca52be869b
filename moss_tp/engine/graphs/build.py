"""Makes a rank's graph runner."""

import torch

from moss_tp.accelerator.base import Accelerator
from moss_tp.config import ModelConfig
from moss_tp.engine.graphs.graph_runner import GraphRunner
from moss_tp.engine.graphs.limits import step_limits
from moss_tp.engine.graphs.sampler import IdsOnly, StepSampler
from moss_tp.engine_config import EngineConfig
from moss_tp.kernels.cuda.sampling.device_sampler import DeviceSampler
from moss_tp.kernels.device_plan import StepLimits
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup


def build_graph_runner(
    model: MossForCausalLM,
    config: ModelConfig,
    group: TPGroup,
    engine: EngineConfig,
    accelerator: Accelerator,
) -> GraphRunner:
    """Of a loaded model. What kernels and sums over ranks write in a step is allocated then, the KV
    cache is not."""
    limits = step_limits(engine)
    if model.kernels.memory is not None:
        model.kernels.memory.reserve(limits, group.device)
    # Blocks are added up in fp32, embeddings in a dtype of the same size or less.
    group.reserve(limits.max_rows * config.hidden_size, torch.float32)
    sampler = _sampler(config, group, limits, accelerator)
    return GraphRunner(model, config, group, engine, accelerator, sampler)


def _sampler(
    config: ModelConfig, group: TPGroup, limits: StepLimits, accelerator: Accelerator
) -> StepSampler:
    max_rows, device = limits.max_logit_rows, group.device
    if group.rank > 0:
        return IdsOnly(max_rows, device)
    launch = accelerator.compute.launch
    return DeviceSampler(config.vocab_size, max_rows, limits.max_seqs, device, launch)
