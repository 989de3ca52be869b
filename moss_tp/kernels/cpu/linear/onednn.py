"""Linear layers by oneDNN, on weights that it has packed for itself.

Used where our own kernels are not faster: in fp32, and in bf16 on machines with AMX.
"""

from typing import Any

import torch
from torch import Tensor

from moss_tp.kernels.base import Weight
from moss_tp.native.vectors import has_cpu_feature

# torch exposes them only through torch.compile, which emits these calls.
_ops = torch.ops.mkldnn


def is_fastest(dtype: torch.dtype) -> bool:
    """Whether oneDNN is the fastest choice for `dtype` on this machine."""
    if not torch._C._has_mkldnn:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_cpu_feature("amx-bf16"))


class OneDnnLinear:
    """Keeps only the packed dense weight."""

    def __init__(self, weight: Weight, has_gelu: bool = False) -> None:
        dense = weight.dense()
        self._weight = _ops._reorder_linear_weight(dense.weight, None)
        self._bias = dense.bias
        none: tuple[str, list[Any], str] = ("none", [], "")
        self._activation = ("gelu", [], "tanh") if has_gelu else none

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is None:
            y: Tensor = _ops._linear_pointwise(x, self._weight, self._bias, *self._activation)
        else:
            y = _ops._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return y
