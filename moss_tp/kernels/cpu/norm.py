"""LayerNorm of fp32 rows, to fp32 or bf16; the weight and bias in fp32. One task is one row."""

import numpy as np
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.elements import kind_of, put, row_bytes
from moss_tp.kernels.cpu.team import Program
from moss_tp.native.compiled import kernel
from moss_tp.native.simd import FP32_BYTES, floats_at, ints_at

NUM_PARAMS = 7


def add_norm(
    program: Program, x: Tensor, weight: Tensor, bias: Tensor, eps: Tensor, out: Tensor
) -> None:
    """`out (T, hidden) = layer_norm(x)`; both contiguous. `eps` is a tensor of one fp32."""
    program.add(_norm, len(x), [x, weight, bias, eps, out, x.shape[1], kind_of(out)])


@kernel
def _norm(params: int, row: int) -> None:
    p = carray(ints_at(params), NUM_PARAMS)
    hidden, kind = p[5], p[6]
    x = floats_at(p[0] + row * hidden * FP32_BYTES)
    weight, bias, eps = floats_at(p[1]), floats_at(p[2]), floats_at(p[3])[0]
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
    put(normed, p[4] + row * row_bytes(hidden, kind), hidden, kind)
