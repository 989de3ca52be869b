"""What a GEMM does to the sums of a task: bias, GELU and residual, and the rounding of the result.

A row's arithmetic is the same whatever the rows beside it: loops run along a row.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.cpu.microkernel.mul_add import GROUP
from moss_tp.native.bf16 import fp32_to_bf16
from moss_tp.native.compiled import inner
from moss_tp.native.exp import exp
from moss_tp.native.llvm import BF16_BYTES, FP32_BYTES
from moss_tp.native.memory import fp32_at, uint16_at
from moss_tp.native.params import Address, params_reader

# sqrt(8 / pi): gelu_tanh(x) = x * sigmoid(GELU_SCALE * (x + GELU_CUBIC * x**3))
GELU_SCALE, GELU_CUBIC, ONE = map(np.float32, (1.5957691216057308, 0.044715, 1))


class OutputParams(NamedTuple):
    out: Address  # (T, columns)
    stride: int  # bytes
    columns: int
    has_gelu: int
    residual: Address  # (T, columns) fp32, contiguous; 0 for none
    is_bf16: int


_read_output = params_reader(OutputParams)


@dataclass(frozen=True)
class GemmOutput:
    """Where columns of the product go, in fp32 or bf16."""

    out: Tensor  # (T, columns), any row stride
    has_gelu: bool = False
    residual: Tensor | None = None  # (T, columns) fp32, contiguous

    def params(self) -> OutputParams:
        out = self.out
        return OutputParams(
            out=out,
            stride=out.stride(0) * out.itemsize,
            columns=out.shape[1],
            has_gelu=int(self.has_gelu),
            residual=0 if self.residual is None else self.residual,
            is_bf16=int(out.dtype == torch.bfloat16),
        )


@inner
def epilogue(sums: Any, bias: Any, output: int, row: int, column: int) -> None:
    """Bias, GELU and residual on a task's sums; stores them from `row` and `column` on."""
    p = _read_output(output)
    width = min(GROUP, p.columns - column)
    for i in range(len(sums)):
        values = sums[i]
        for j in range(GROUP):
            values[j] += bias[j]
        if p.has_gelu:
            for j in range(GROUP):
                x = values[j]
                values[j] = x / (ONE + exp(-GELU_SCALE * (x + GELU_CUBIC * x * x * x)))
        if p.residual:
            residual = fp32_at(p.residual + ((row + i) * p.columns + column) * FP32_BYTES)
            for j in range(width):
                values[j] += residual[j]
        start = p.out + (row + i) * p.stride
        if p.is_bf16:
            out_bf16 = uint16_at(start + column * BF16_BYTES)
            for j in range(width):
                out_bf16[j] = fp32_to_bf16(values[j])
        else:
            out_fp32 = fp32_at(start + column * FP32_BYTES)
            for j in range(width):
                out_fp32[j] = values[j]
