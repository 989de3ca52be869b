"""Makes the parameters of linear layers: dense or quantized, whichever a model's config says."""

from dataclasses import dataclass
from functools import partial

import torch

from moss_tp.config import ModelConfig
from moss_tp.layers.parallel_weight import DenseParallelWeight
from moss_tp.layers.quantized_weight import QuantizedParallelWeight
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.shard import Shard

ParallelWeight = DenseParallelWeight | QuantizedParallelWeight


@dataclass(frozen=True)
class LinearLayers:
    """Of one rank. `device` is where they are loaded to, None for the group's."""

    config: ModelConfig
    group: TPGroup
    dtype: torch.dtype
    device: torch.device | None = None

    @property
    def place(self) -> torch.device:
        return self.device or self.group.device

    def make(self, layer: str, shard: Shard, num_outputs: int | None = None) -> ParallelWeight:
        """The `shard` of the layer of this name; zeros pad its outputs to `num_outputs`."""
        form = self.config.format_of(layer)
        make = DenseParallelWeight if form is None else partial(QuantizedParallelWeight, form)
        return make(
            shard,
            self.group,
            self.dtype,
            has_bias=self.config.has_bias(layer),
            device=self.device,
            num_outputs=num_outputs,
        )
