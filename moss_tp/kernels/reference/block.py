"""A transformer block as separate operations, with any linears and any attention."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import Attend, BlockWeights, Kernels, MakeLinear
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.reference.attention import attend as reference_attend
from moss_tp.kernels.reference.linear import PlainLinear
from moss_tp.kernels.rotary import Rotary


class EagerBlock:
    """See `base` for what a block computes."""

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


def eager_kernels(dtype: torch.dtype, linear: MakeLinear, attend: Attend) -> Kernels:
    """Kernels whose blocks are EagerBlocks, with activations of the weights' dtype."""
    return Kernels(dtype, linear, lambda weights: EagerBlock(weights, linear, attend))


def reference_kernels(dtype: torch.dtype) -> Kernels:
    return eager_kernels(dtype, PlainLinear, reference_attend)
