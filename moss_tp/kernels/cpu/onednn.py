"""Linear layers by oneDNN, on weights that it has packed for itself.

For what nothing of ours multiplies faster: fp32, and bf16 where there are AMX tiles for it.
"""

from typing import Any

import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.cpu.vectors import has_instructions

# Public only through torch.compile, which emits these very calls.
_ops = torch.ops.mkldnn


def has_fast(dtype: torch.dtype) -> bool:
    """Whether it is the fastest for `dtype` on this machine."""
    if not torch._C._has_mkldnn:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_instructions("amx-bf16"))


class OneDnnLinear:
    """Keeps only the packed weights."""

    def __init__(self, weight: DenseWeight, has_gelu: bool = False) -> None:
        self._weight = _ops._reorder_linear_weight(weight.weight, None)
        self._bias = weight.bias
        none: tuple[str, list[Any], str] = ("none", [], "")
        self._activation = ("gelu", [], "tanh") if has_gelu else none

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is None:
            y: Tensor = _ops._linear_pointwise(x, self._weight, self._bias, *self._activation)
        else:
            y = _ops._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return y
