"""A transformer block as separate operations, with any linears and any attention."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import Attend, BlockWeights, DenseWeight, Kernels, MakeLinear
from moss_tp.kernels.leaves import add_tree, leaf_spans
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.quantized import concat_inputs
from moss_tp.kernels.reference.attention import attend as reference_attend
from moss_tp.kernels.reference.linear import PlainLinear
from moss_tp.kernels.rotary import Rotary


class EagerBlock:
    """See `base` for what a block computes."""

    def __init__(self, weights: BlockWeights, linear: MakeLinear, attend: Attend) -> None:
        self._norm, self._eps = weights.norm, weights.eps
        self._qkv = linear(weights.qkv, False)
        self._fc_in = linear(weights.fc_in, True)
        second = concat_inputs(weights.out, weights.fc_out).dense()
        spans = leaf_spans(weights.out.inputs, weights.fc_out.inputs, weights.leaves)
        self._inputs = [torch.tensor([*first, *then]) for first, then in spans]
        parts = [second.weight[:, inputs.to(second.weight.device)] for inputs in self._inputs]
        self._leaves = [linear(DenseWeight(part.contiguous()), False) for part in parts]
        self._bias = second.bias
        self._attend = attend
        self._head_dim = weights.head_dim

    def __call__(
        self, x: Tensor, rotary: Rotary, cache: tuple[Tensor, Tensor], plan: AttentionPlan
    ) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:], *self._norm, self._eps)
        qkv = self._qkv(normed).view(len(x), 3, -1, self._head_dim)
        attended = self._attend(qkv, rotary, cache, plan, self._head_dim**-0.5)
        mixed = torch.cat((attended, self._fc_in(normed)), dim=1)
        leaves = zip(self._leaves, self._inputs, strict=True)
        return add_tree([leaf(mixed[:, inputs.to(x.device)]) for leaf, inputs in leaves])

    def finish(self, total: Tensor, x: Tensor) -> Tensor:
        if self._bias is not None:
            total = total + self._bias
        return (total + x).to(x.dtype)


def eager_kernels(dtype: torch.dtype, linear: MakeLinear, attend: Attend) -> Kernels:
    """Kernels whose blocks are EagerBlocks, with activations of the weights' dtype."""
    return Kernels(dtype, linear, lambda weights: EagerBlock(weights, linear, attend))


def reference_kernels(dtype: torch.dtype) -> Kernels:
    return eager_kernels(dtype, PlainLinear, reference_attend)
