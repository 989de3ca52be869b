"""Linear layers by torch, whose order of summation depends on the number of rows."""

import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import Weight


class PlainLinear:
    """Multiplies by the dense weight, which it keeps as it is."""

    def __init__(self, weight: Weight, has_gelu: bool = False) -> None:
        dense = weight.dense()
        self._weight, self._bias, self._has_gelu = dense.weight, dense.bias, has_gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = F.linear(x, self._weight, self._bias)
        if self._has_gelu:
            y = F.gelu(y, approximate="tanh")
        return y if residual is None else y.add_(residual)
