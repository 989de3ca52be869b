"""Matrix products with packed weights, as ops: `y = activation(x @ w.T + bias) + residual`.

Two weights that share an input are one op with two outputs, see `PackedWeight.stack`. A weight type
that has panels of its own needs a function that packs it, in PACKERS, and a kernel, in KERNELS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, Weight
from moss_tp.kernels.cpu.linear.epilogue import OutputParams
from moss_tp.kernels.cpu.linear.gemm_kernel import KERNELS, MAX_TASK_ROWS, GemmParams
from moss_tp.kernels.cpu.linear.mul_add import X_STEP_BYTES, MulAdd
from moss_tp.kernels.cpu.linear.pack import GROUP, GROUP_PANELS, PackedWeight, pack_dense
from moss_tp.kernels.cpu.runtime.program import Program

PACKERS: dict[type, Callable[[Any, MulAdd | None], PackedWeight]] = {DenseWeight: pack_dense}


def pack_for_gemm(weight: Weight, mul_add: MulAdd | None = None) -> PackedWeight:
    """Packs for `mul_add`, or for the best that this machine has; a type without a packer as a
    dense weight. Compiles the kernel now, so that no request waits for it."""
    packer = PACKERS.get(type(weight))
    packed = packer(weight, mul_add) if packer else pack_dense(weight.dense(), mul_add)
    KERNELS[packed.mul_add]()
    return packed


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


def add_gemm(program: Program, x: Tensor, weight: PackedWeight, *outputs: GemmOutput) -> None:
    """`x (T, inputs)` times all of `weight`, into one output or, for stacked weights, into two.

    Raises ValueError for an x that does not fit `weight`.
    """
    rows, inputs = x.shape
    if (inputs, x.dtype) != (weight.inputs, weight.x_dtype) or x.stride(1) != 1:
        raise ValueError(
            f"x {tuple(x.shape)}, {x.dtype}, for {weight.inputs} inputs in {weight.x_dtype}"
        )
    groups = len(weight.panels) // GROUP_PANELS
    row_blocks = -(-rows // MAX_TASK_ROWS)
    params = GemmParams(
        x=x,
        x_stride=x.stride(0) * x.itemsize,
        num_rows=rows,
        steps=inputs * x.itemsize // X_STEP_BYTES,
        panels=weight.panels,
        bias=weight.bias,
        row_blocks=row_blocks,
        first_groups=-(-outputs[0].out.shape[1] // GROUP),
    )
    kernel = KERNELS[weight.mul_add]()
    program.add(kernel, groups * row_blocks, params, *(output.params() for output in outputs))
