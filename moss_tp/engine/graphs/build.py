"""Makes a rank's graph runner."""

from moss_tp.accelerator.base import Accelerator
from moss_tp.config import ModelConfig
from moss_tp.engine.graphs.graph_runner import GraphRunner
from moss_tp.engine.graphs.limits import step_limits
from moss_tp.engine.graphs.memory import take_step_memory
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
    """Of a loaded model; the KV cache is not allocated yet. All ranks must be in here at the same
    time. What steps need of the memory is taken, so that what is left is for the cache."""
    limits = step_limits(engine)
    if model.kernels.memory is not None:
        model.kernels.memory.reserve(limits, group.device)
    group.reserve(limits.max_rows * config.hidden_size, model.kernels.activations)
    sampler = _sampler(config, group, limits, accelerator)
    runner = GraphRunner(model, config, group, engine, accelerator, sampler)
    if engine.kv_cache_bytes is None:
        take_step_memory(runner, engine)
    return runner


def _sampler(
    config: ModelConfig, group: TPGroup, limits: StepLimits, accelerator: Accelerator
) -> StepSampler:
    max_rows, device = limits.max_logit_rows, group.device
    if group.rank > 0:
        return IdsOnly(max_rows, device)
    launch = accelerator.compute.launch
    return DeviceSampler(config.vocab_size, max_rows, limits.max_seqs, device, launch)
