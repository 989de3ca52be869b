"""Matrix products with packed weights, as ops: `y = activation(x @ w.T + bias) + residual`.

Two weights that share an input are one op with two outputs, where they can be stacked. A weight
type that has panels of its own needs a function that packs it, in PACKERS, a class of packed
weights, and that class's product, in PRODUCTS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, Weight
from moss_tp.kernels.cpu.linear.epilogue import GemmOutput
from moss_tp.kernels.cpu.linear.gemm_kernel import KERNELS, MAX_TASK_ROWS, GemmParams
from moss_tp.kernels.cpu.linear.leaf_sums import Leaves
from moss_tp.kernels.cpu.linear.pack import PackedWeight, pack_dense
from moss_tp.kernels.cpu.linear.quantized_gemm import add_quantized, quantized_kernel
from moss_tp.kernels.cpu.linear.quantized_pack import QuantizedPanels, pack_quantized
from moss_tp.kernels.cpu.microkernel.mul_add import GROUP, GROUP_PANELS, X_STEP_BYTES, MulAdd
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.kernels.quantized import QuantizedWeight


class Packed(Protocol):
    """A weight as its kernel reads it."""

    @property
    def outputs(self) -> int: ...

    @property
    def inputs(self) -> int: ...

    @property
    def bias(self) -> Tensor: ...

    @property
    def x_dtype(self) -> torch.dtype: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the model."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What differs between weights of one layout."""

    @property
    def layout(self) -> tuple[object, ...]:
        """Equal for weights that the same program can multiply by."""

    def stack(self, other: Any) -> "Packed | None":
        """Both weights, of one class, for one product with the same x: the outputs of `self`,
        padded to whole groups, then those of `other`; `outputs` stays that of `self`. None for
        weights that cannot share a product."""


@dataclass(frozen=True)
class _Product:
    kernel: Callable[[Any], int]  # of a packed weight
    add: Callable[..., None]


def pack_for_gemm(
    weight: Weight, mul_add: MulAdd | None = None, leaves: Leaves | None = None
) -> Packed:
    """Packs for `mul_add`, or for the best that this machine has; a type without a packer as a
    dense weight. Its sums are cut into `leaves`, or are one. Compiles the kernel now, so that no
    request waits for it."""
    packer = PACKERS.get(type(weight))
    if packer is None:
        packed: Packed = pack_dense(weight.dense(), mul_add, leaves)
    else:
        packed = packer(weight, mul_add, leaves)
    compile_for(packed)
    return packed


def compile_for(packed: Packed) -> None:
    """Compiles the kernel that multiplies by `packed`."""
    PRODUCTS[type(packed)].kernel(packed)


def add_gemm(program: Program, x: Tensor, weight: Packed, *outputs: GemmOutput) -> None:
    """`x (T, inputs)` times all of `weight`, into one output or, for stacked weights, into two.

    Raises ValueError for an x that does not fit `weight`.
    """
    if (x.shape[1], x.dtype) != (weight.inputs, weight.x_dtype) or x.stride(1) != 1:
        raise ValueError(
            f"x {tuple(x.shape)}, {x.dtype}, for {weight.inputs} inputs in {weight.x_dtype}"
        )
    PRODUCTS[type(weight)].add(program, x, weight, *outputs)


def _add_dense(program: Program, x: Tensor, weight: PackedWeight, *outputs: GemmOutput) -> None:
    rows, inputs = x.shape
    groups = len(weight.panels) // GROUP_PANELS
    row_blocks = -(-rows // MAX_TASK_ROWS)
    params = GemmParams(
        x=x,
        x_stride=x.stride(0) * x.itemsize,
        num_rows=rows,
        steps=inputs * x.itemsize // X_STEP_BYTES,
        panels=weight.panels,
        spans=weight.spans,
        num_spans=len(weight.spans),
        levels=weight.levels,
        bias=weight.bias,
        row_blocks=row_blocks,
        first_groups=-(-outputs[0].out.shape[1] // GROUP),
    )
    kernel = _dense_kernel(weight)
    program.add(kernel, groups * row_blocks, params, *(output.params() for output in outputs))


def _dense_kernel(weight: PackedWeight) -> int:
    return KERNELS[weight.mul_add]()


PACKERS: dict[type, Callable[[Any, MulAdd | None, Leaves | None], Packed]] = {
    DenseWeight: pack_dense,
    QuantizedWeight: pack_quantized,
}
PRODUCTS: dict[type, _Product] = {
    PackedWeight: _Product(_dense_kernel, _add_dense),
    QuantizedPanels: _Product(quantized_kernel, add_quantized),
}
