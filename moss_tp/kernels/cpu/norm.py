"""LayerNorm of fp32 rows; the weight and bias in fp32 too. One task is one row."""

import numpy as np
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.team import Program
from moss_tp.native.compiled import kernel
from moss_tp.native.simd import FP32_BYTES, floats_at, ints_at

NUM_PARAMS = 6


def add_norm(
    program: Program, x: Tensor, weight: Tensor, bias: Tensor, eps: Tensor, out: Tensor
) -> None:
    """`out (T, hidden) = layer_norm(x)`; both contiguous. `eps` is a tensor of one fp32."""
    program.add(_norm, len(x), [x, weight, bias, eps, out, x.shape[1]])


@kernel
def _norm(params: int, row: int) -> None:
    p = carray(ints_at(params), NUM_PARAMS)
    hidden = p[5]
    x = floats_at(p[0] + row * hidden * FP32_BYTES)
    weight, bias, eps = floats_at(p[1]), floats_at(p[2]), floats_at(p[3])[0]
    out = floats_at(p[4] + row * hidden * FP32_BYTES)
    total = np.float32(0)
    for i in range(hidden):
        total += x[i]
    mean = total / np.float32(hidden)
    squares = np.float32(0)
    for i in range(hidden):
        squares += (x[i] - mean) * (x[i] - mean)
    scale = np.float32(1) / np.sqrt(squares / np.float32(hidden) + eps)
    for i in range(hidden):
        out[i] = (x[i] - mean) * scale * weight[i] + bias[i]
