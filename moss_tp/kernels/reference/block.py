"""A transformer block as separate operations, with any linears and any attention."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import Attend, BlockWeights, DenseWeight, Kernels, Linear, MakeLinear
from moss_tp.kernels.leaves import add_tree
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
        out, fc_out = weights.out.dense(), weights.fc_out.dense()
        self._out = _leaves(out, weights.leaves, linear)
        self._fc_out = _leaves(fc_out, weights.leaves, linear)
        self._biases = [bias for bias in (out.bias, fc_out.bias) if bias is not None]
        self._attend = attend
        self._head_dim = weights.head_dim

    def __call__(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:], *self._norm, self._eps)
        qkv = self._qkv(normed).view(len(x), 3, -1, self._head_dim)
        attended = self._attend(qkv, rotary, cache, plan, self._head_dim**-0.5)
        inner = self._fc_in(normed)
        sums = zip(_multiplied(self._out, attended), _multiplied(self._fc_out, inner), strict=True)
        return add_tree([first + second for first, second in sums])

    def finish(self, total: Tensor, x: Tensor) -> Tensor:
        for bias in self._biases:
            total = total + bias
        return (total + x).to(x.dtype)


def _leaves(dense: DenseWeight, count: int, linear: MakeLinear) -> list[Linear]:
    """Products with equal parts of the inputs, without the bias."""
    parts = dense.weight.chunk(count, dim=1)
    return [linear(DenseWeight(part), False) for part in parts]


def _multiplied(leaves: Sequence[Linear], x: Tensor) -> list[Tensor]:
    parts = x.chunk(len(leaves), dim=1)
    return [leaf(part).float() for leaf, part in zip(leaves, parts, strict=True)]


def eager_kernels(dtype: torch.dtype, linear: MakeLinear, attend: Attend) -> Kernels:
    """Kernels whose blocks are EagerBlocks, with activations of the weights' dtype."""
    return Kernels(dtype, linear, lambda weights: EagerBlock(weights, linear, attend))


def reference_kernels(dtype: torch.dtype) -> Kernels:
    return eager_kernels(dtype, PlainLinear, reference_attend)
