"""LayerNorm of fp32 rows, to fp32 or bf16, with weight and bias in fp32. One task is one row."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes, row_dtype, store_row
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.native.compiled import kernel
from moss_tp.native.llvm import FP32_BYTES
from moss_tp.native.memory import fp32_at
from moss_tp.native.params import Address, params_reader


class NormParams(NamedTuple):
    x: Address  # (T, hidden) fp32, contiguous
    weight: Address  # (hidden,) fp32
    bias: Address
    eps: Address  # one fp32
    out: Address  # (T, hidden), contiguous
    hidden: int
    out_dtype: int


_read_params = params_reader(NormParams)


def add_norm(
    program: Program, x: Tensor, weight: Tensor, bias: Tensor, eps: Tensor, out: Tensor
) -> None:
    """`out (T, hidden) = layer_norm(x)`; see NormParams."""
    params = NormParams(x, weight, bias, eps, out, x.shape[1], row_dtype(out.dtype))
    program.add(_norm, len(x), params)


@kernel
def _norm(params: int, row: int) -> None:
    p = _read_params(params)
    hidden = p.hidden
    x = fp32_at(p.x + row * hidden * FP32_BYTES)
    weight, bias, eps = fp32_at(p.weight), fp32_at(p.bias), fp32_at(p.eps)[0]
    normed = np.empty(hidden, np.float32)
    total = np.float32(0)
    for i in range(hidden):
        total += x[i]
    mean = total / np.float32(hidden)
    squares = np.float32(0)
    for i in range(hidden):
        squares += (x[i] - mean) * (x[i] - mean)
    scale = np.float32(1) / np.sqrt(squares / np.float32(hidden) + eps)
    for i in range(hidden):
        normed[i] = (x[i] - mean) * scale * weight[i] + bias[i]
    store_row(normed, p.out + row * row_bytes(hidden, p.out_dtype), hidden, p.out_dtype)
