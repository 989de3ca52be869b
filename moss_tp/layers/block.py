"""A transformer block of MOSS: its parameters under their published names, and its kernel.

    x + attn(ln_1(x)) + mlp(ln_1(x))      one all-reduce: each rank first adds up its own leaves

The arithmetic is the kernel's; see the protocols in `kernels/base.py`. `kernels/reference/block.py`
spells it out operation by operation, `kernels/cpu/block.py` runs it as one program.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from moss_tp.config import FC_IN, FC_OUT, OUT_PROJ, QKV_PROJ, ModelConfig, block_name
from moss_tp.errors import ConfigError
from moss_tp.kernels.base import BlockKernel, BlockWeights, Kernels, LayerCache, StepPlan
from moss_tp.kernels.rotary import Rotary
from moss_tp.layers.linear_layers import LinearLayers
from moss_tp.layers.offload import StreamableBlock, WeightStream
from moss_tp.layers.parallel_weight import column_parallel, qkv_parallel, release, row_parallel


class MossAttention(nn.Module):
    """The attention's parameters, for this rank's heads."""

    def __init__(self, layers: LinearLayers, block: str) -> None:
        super().__init__()
        hidden, group = layers.config.hidden_size, layers.group
        qkv, out = qkv_parallel(hidden, group), row_parallel(hidden, hidden, group)
        self.qkv_proj = layers.make(f"{block}.{QKV_PROJ}", qkv)
        self.out_proj = layers.make(f"{block}.{OUT_PROJ}", out)


class MossMLP(nn.Module):
    """The MLP's parameters, for this rank's columns."""

    def __init__(self, layers: LinearLayers, block: str) -> None:
        super().__init__()
        group = layers.group
        hidden, inner = layers.config.hidden_size, layers.config.intermediate_size
        fc_in, fc_out = column_parallel(hidden, inner, group), row_parallel(inner, hidden, group)
        self.fc_in = layers.make(f"{block}.{FC_IN}", fc_in)
        self.fc_out = layers.make(f"{block}.{FC_OUT}", fc_out)


class MossBlock(nn.Module):
    """Attention and MLP in parallel on one normed input. Call `pack` before the first use.

    It is the `number`th of the model.
    """

    def __init__(self, layers: LinearLayers, number: int) -> None:
        super().__init__()
        self._group = layers.group
        self._head_dim = layers.config.head_dim
        self._leaves = layers.config.leaves_of_rank(layers.group.size)
        self.kernel: BlockKernel | None = None
        self.ln_1 = layer_norm(layers.config, layers.dtype, layers.place)
        self.attn = MossAttention(layers, block_name(number))
        self.mlp = MossMLP(layers, block_name(number))

    def pack(self, kernels: Kernels) -> None:
        """Hands the loaded weights over to the block's kernel."""
        self.kernel = kernels.block(
            BlockWeights(
                norm=(self.ln_1.weight, self.ln_1.bias),
                eps=self.ln_1.eps,
                qkv=self.attn.qkv_proj.kernel_weight(),
                fc_in=self.mlp.fc_in.kernel_weight(),
                out=self.attn.out_proj.kernel_weight(),
                fc_out=self.mlp.fc_out.kernel_weight(),
                head_dim=self._head_dim,
                leaves=self._leaves,
            )
        )
        release(self)

    def take(self, kernels: Kernels, description: Any, tensors: tuple[Tensor, ...]) -> None:
        """Computes with weights that are packed already; see `Storage`."""
        assert kernels.storage is not None
        self.kernel = kernels.storage.block(description, tensors)
        release(self)

    def move_to(self, stream: WeightStream, layer: int) -> None:
        """Has the packed weights, which are on the host, streamed to the device as those of
        `layer`. Raises ConfigError when the kernel cannot."""
        if not hasattr(self.kernel, "tensors"):
            raise ConfigError("cpu_offload_gb is set, but the kernels cannot stream their weights")
        self.kernel = cast(BlockKernel, stream.add(layer, cast(StreamableBlock, self.kernel)))

    def forward(self, x: Tensor, rotary: Rotary, cache: LayerCache, plan: StepPlan) -> Tensor:
        """`x (T, hidden) -> (T, hidden)`; fills the plan's slots of `cache`."""
        if self.kernel is None:
            raise RuntimeError("the block is not packed")
        own = self.kernel(x, rotary, cache, plan)
        return self.kernel.finish(self._group.all_reduce(own), x)


def layer_norm(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> nn.LayerNorm:
    """A LayerNorm over the hidden size, replicated on every rank."""
    norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, device=device, dtype=dtype)
    return norm.requires_grad_(False)
