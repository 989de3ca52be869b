"""A linear layer on weights in panels, run as a program of its own."""

import torch
from torch import Tensor

from moss_tp.kernels.base import Weight
from moss_tp.kernels.cpu.linear.gemm import GemmOutput, add_gemm, pack_for_gemm
from moss_tp.kernels.cpu.linear.mul_add import MulAdd
from moss_tp.kernels.cpu.runtime.program import Program


class PanelLinear:
    """Keeps only the packed weight. `mul_add` is the best one for this machine by default."""

    def __init__(
        self, weight: Weight, has_gelu: bool = False, mul_add: MulAdd | None = None
    ) -> None:
        self._weight = pack_for_gemm(weight, mul_add)
        self._has_gelu = has_gelu

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = torch.empty(len(x), self._weight.outputs)
        program, x = Program(), x.to(self._weight.x_dtype)
        add_gemm(program, x, self._weight, GemmOutput(out, self._has_gelu, residual))
        program.run()
        return out
