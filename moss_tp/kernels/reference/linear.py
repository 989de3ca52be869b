"""Linear layers by torch, for each weight type that torch can multiply by."""

import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, MakeLinear, linear_by_type


class PlainLinear:
    """Keeps the weight as it is."""

    def __init__(self, weight: DenseWeight, has_gelu: bool = False) -> None:
        self._weight, self._bias, self._has_gelu = weight.weight, weight.bias, has_gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = F.linear(x, self._weight, self._bias)
        if self._has_gelu:
            y = F.gelu(y, approximate="tanh")
        return y if residual is None else y.add_(residual)


reference_linear: MakeLinear = linear_by_type({DenseWeight: PlainLinear})
