"""Weight types, and what the model calls: linears, attention and whole transformer blocks.

    x' = x + out_proj(attention(qkv)) + fc_out(gelu(fc_in(n)))     qkv, n of layer_norm(x)

Its sums are cut into leaves, see `leaves`, so that any number of ranks gives the same bits: a rank
adds up its own leaves, the ranks' sums are added up, then each rank adds bias and residual.

The weights are one rank's, after loading; a back end packs them as it likes. A further weight type
is a class like DenseWeight, in a file of its own. Back ends without a kernel for it multiply by its
`dense()`; one that has a kernel lists it, see `cpu.linear.gemm.PACKERS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from moss_tp.kernels.device_plan import StepLimits
from moss_tp.kernels.kv_cache import CacheFormat, RowFormat
from moss_tp.kernels.rotary import Rotary

# What a back end reads of a step: an AttentionPlan, or on CUDA a DevicePlan.
StepPlan = Any
# A layer's K and V, as the back end has allocated them: a pair of tensors, or more than that.
LayerCache = Any


class Weight(Protocol):
    """A linear layer's weight on one rank, in any format."""

    @property
    def outputs(self) -> int: ...

    @property
    def inputs(self) -> int: ...

    def concat_inputs(self, other: Any) -> "Weight":
        """The weight whose product with `[x | y]` is the sum of both products, `self` times x and
        `other`, of the same type, times y. Biases are added."""
        ...

    def dense(self) -> "DenseWeight":
        """The same weight in the model's dtype."""
        ...


@dataclass(frozen=True)
class DenseWeight:
    """`y = x @ weight.T + bias`."""

    weight: Tensor  # (outputs, inputs)
    bias: Tensor | None = None  # (outputs,)

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    def concat_inputs(self, other: "DenseWeight") -> "DenseWeight":
        biases = [bias for bias in (self.bias, other.bias) if bias is not None]
        bias = biases[0] + biases[1] if len(biases) == 2 else next(iter(biases), None)
        return DenseWeight(torch.cat((self.weight, other.weight), dim=1), bias)

    def dense(self) -> "DenseWeight":
        return self


@dataclass(frozen=True)
class BlockWeights:
    """`H` heads of `D`, `inner` columns and `leaves` are this rank's; biases are whole."""

    norm: tuple[Tensor, Tensor]  # (hidden,) weight and bias
    eps: float
    qkv: Weight  # (3 * H * D, hidden), rows [q | k | v]
    fc_in: Weight  # (inner, hidden)
    out: Weight  # (hidden, H * D)
    fc_out: Weight  # (hidden, inner)
    head_dim: int
    leaves: int


class Linear(Protocol):
    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """`x (T, inputs) -> activation(x @ w.T + bias) + residual`, `(T, outputs)`."""
        ...


class BlockKernel(Protocol):
    def __call__(self, x: Tensor, rotary: Rotary, cache: LayerCache, plan: StepPlan) -> Tensor:
        """`x (T, hidden) -> (T, hidden)` fp32, the sum of the rank's leaves; writes the step's K
        and V to `cache`."""
        ...

    def finish(self, total: Tensor, x: Tensor) -> Tensor:
        """The block's result for its input x: `total`, the sum of all ranks' leaves `(T, hidden)`
        fp32, then the biases of out_proj and fc_out, then x. Rounded once, to the dtype of x."""
        ...


class ChainKernel(Protocol):
    def __call__(
        self,
        x: Tensor,
        rotary: Rotary,
        layers: Sequence[LayerCache],
        plan: StepPlan,
    ) -> Tensor:
        """All blocks in sequence, each with its cache in `layers`. For a single rank, which has
        no all-reduce between blocks."""
        ...


class NormKernel(Protocol):
    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """`x (T, hidden) -> (R, hidden)`: LayerNorm of `rows (R,)` int32 of x."""
        ...


class StepMemory(Protocol):
    """What kernels write in a step, besides the cache: one allocation, of which all steps take."""

    def bytes(self, limits: StepLimits) -> int:
        """Of the largest step within `limits`; known once the weights are packed."""
        ...

    def reserve(self, limits: StepLimits, device: torch.device) -> None:
        """Allocates it. From now on a larger step raises StepMemoryError. Without it memory grows
        with the steps."""
        ...


class Storage(Protocol):
    """Packed weights to and from files: a description in JSON, and tensors. ValueError for a
    description of nothing."""

    def describe(self, kernel: Any) -> tuple[Any, tuple[Tensor, ...]]:
        """Of a block or linear that these kernels have made."""
        ...

    def block(self, description: Any, tensors: tuple[Tensor, ...]) -> BlockKernel: ...

    def linear(self, description: Any, tensors: tuple[Tensor, ...]) -> Linear: ...


MakeLinear = Callable[[Weight, bool], Linear]  # of a weight and has_gelu
Attend = Callable[[Tensor, Rotary, LayerCache, StepPlan, float], Tensor]


@dataclass(frozen=True)
class Kernels:
    """What one rank computes with. Activations between blocks are of dtype `activations`; what
    ranks add up of a block is fp32."""

    activations: torch.dtype
    linear: MakeLinear
    block: Callable[[BlockWeights], BlockKernel]
    # Takes what `block` made; None if a chain would only call the blocks one after the other.
    chain: Callable[[Sequence[Any]], ChainKernel] | None = None
    cache: CacheFormat = field(default_factory=RowFormat)
    # Of the norm's weight and bias and its epsilon; None where the model norms by torch.
    norm: Callable[[Tensor, Tensor, float], NormKernel] | None = None
    # None where kernels allocate as they go. Else results are overwritten by the next step.
    memory: StepMemory | None = None
    # Rows of steps that between them use every kernel, where the choice depends on their number.
    row_buckets: tuple[int, ...] = ()
    # None where packed weights cannot be kept in files.
    storage: Storage | None = None
