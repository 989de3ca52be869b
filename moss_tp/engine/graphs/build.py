"""Makes a rank's graph runner."""

from moss_tp.accelerator.base import Accelerator
from moss_tp.config import ModelConfig
from moss_tp.engine.graphs.graph_runner import GraphRunner
from moss_tp.engine_config import EngineConfig
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup


def build_graph_runner(
    model: MossForCausalLM,
    config: ModelConfig,
    group: TPGroup,
    engine: EngineConfig,
    accelerator: Accelerator,
) -> GraphRunner:
    """Of a loaded model; the KV cache is not allocated yet."""
    raise NotImplementedError("there is no sampler on the device yet")
