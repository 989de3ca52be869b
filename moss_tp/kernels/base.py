"""What a transformer block asks of its kernels, and the weights it hands over to them.

    partial = (x +) out_proj(attention(qkv)) + fc_out(gelu(fc_in(n)))     qkv, n of layer_norm(x)

The weights are one rank's, after loading; kernels pack them as they like.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary


@dataclass(frozen=True)
class DenseWeight:
    """A linear layer's weights on one rank: `y = x @ weight.T + bias`."""

    weight: Tensor  # (outputs, inputs)
    bias: Tensor | None = None  # (outputs,)


@dataclass(frozen=True)
class BlockWeights:
    """`H` heads of `D` and `inner` columns are this rank's. Only one rank adds the residual x
    and `fc_out`'s bias, as the ranks' results are summed."""

    norm: tuple[Tensor, Tensor]  # (hidden,) weight and bias
    eps: float
    qkv: DenseWeight  # (3 * H * D, hidden), rows [q | k | v]
    fc_in: DenseWeight  # (inner, hidden)
    out: DenseWeight  # (hidden, H * D)
    fc_out: DenseWeight  # (hidden, inner)
    head_dim: int
    adds_residual: bool


class Linear(Protocol):
    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """`x (T, inputs) -> activation(x @ w.T + bias) + residual`, `(T, outputs)`."""
        ...


class BlockKernel(Protocol):
    def __call__(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        """`x (T, hidden) -> (T, hidden)`, a partial sum; fills the plan's slots of `cache`."""
        ...


class ChainKernel(Protocol):
    def __call__(
        self,
        x: Tensor,
        rotary: Rotary,
        layers: Sequence[tuple[Tensor, Tensor]],
        plan: AttentionPlan,
    ) -> Tensor:
        """Blocks one after the other, each on its own cache of `layers`: for a single rank, which
        has nothing to exchange between them."""
        ...


MakeLinear = Callable[[DenseWeight, bool], Linear]  # weight, has_gelu
Attend = Callable[[Tensor, Rotary, tuple[Tensor, Tensor], AttentionPlan, float], Tensor]
