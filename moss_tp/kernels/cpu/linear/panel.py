"""A linear layer on weights in panels, run as a program of its own."""

from typing import Self

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.base import Weight
from moss_tp.kernels.cpu.linear.epilogue import GemmOutput
from moss_tp.kernels.cpu.linear.gemm import Packed, add_gemm, compile_for, pack_for_gemm
from moss_tp.kernels.cpu.microkernel.mul_add import MulAdd
from moss_tp.kernels.cpu.runtime.pool import ProgramPool
from moss_tp.kernels.cpu.runtime.program import Program


class PanelLinear:
    """Keeps only the packed weight. `mul_add` is the best one for this machine by default."""

    def __init__(
        self, weight: Weight, has_gelu: bool = False, mul_add: MulAdd | None = None
    ) -> None:
        self._take(pack_for_gemm(weight, mul_add), has_gelu)

    @classmethod
    def over(cls, packed: Packed) -> Self:
        """On a weight that is packed already, without GELU."""
        linear = cls.__new__(cls)
        compile_for(packed)
        linear._take(packed, has_gelu=False)
        return linear

    def _take(self, packed: Packed, has_gelu: bool) -> None:
        self.packed = packed
        self._has_gelu = has_gelu
        self._pool = ProgramPool[Program]()

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """See `base.Linear`. Raises ValueError for an x that does not fit."""
        x, out = x.to(self.packed.x_dtype), torch.empty(len(x), self.packed.outputs)
        tensors = (x, out) if residual is None else (x, out, residual)
        is_own_residual = residual is not None and residual.data_ptr() == x.data_ptr()
        key = (x.shape, x.stride(), residual is None, is_own_residual)
        program = self._pool.take(key, len(x))
        if program is None:
            program = Program()
            add_gemm(program, x, self.packed, GemmOutput(out, self._has_gelu, residual))
            program.declare_inputs(tensors)
        program.run(np.array([[tensor.data_ptr() for tensor in tensors]]))
        self._pool.put(key, program, len(x))
        return out
