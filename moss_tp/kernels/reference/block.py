"""A block as a row of separate operations, on whatever device its linears and attention are."""

import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import Attend, BlockWeights, DenseWeight, MakeLinear
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.rotary import Rotary


class PlainLinear:
    """torch's own; keeps the weights as they are."""

    def __init__(self, weight: DenseWeight, has_gelu: bool = False) -> None:
        self._weight, self._bias, self._has_gelu = weight.weight, weight.bias, has_gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = F.linear(x, self._weight, self._bias)
        if self._has_gelu:
            y = F.gelu(y, approximate="tanh")
        return y if residual is None else y.add_(residual)


class EagerBlock:
    def __init__(self, weights: BlockWeights, linear: MakeLinear, attend: Attend) -> None:
        self._norm, self._eps = weights.norm, weights.eps
        self._qkv = linear(weights.qkv, False)
        self._fc_in = linear(weights.fc_in, True)
        self._out = linear(weights.out, False)
        self._fc_out = linear(weights.fc_out, False)
        self._attend = attend
        self._head_dim = weights.head_dim
        self._adds_residual = weights.adds_residual

    def __call__(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:], *self._norm, self._eps)
        qkv = self._qkv(normed).view(len(x), 3, -1, self._head_dim)
        attended = self._attend(qkv, rotary, cache, plan, self._head_dim**-0.5)
        partial = self._out(attended, x if self._adds_residual else None)
        return self._fc_out(self._fc_in(normed), partial)
