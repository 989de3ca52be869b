"""Linear layers on packed weights in bf16: `y = activation(x @ w.T + bias) + residual`.

The weights lie in panels (see `products`), of which GROUP columns for up to MAX_TASK_ROWS rows
are one task: few rows read each weight once from memory, many rows find it in the cache. Two
weights that share an input are one op: `Packed.stack`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.cpu.products import (
    DOT_BF16,
    PANEL,
    WIDE_BF16,
    X_BYTES,
    Product,
)
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.cpu.tile import Shape, make_tile
from moss_tp.kernels.cpu.vectors import has_instructions
from moss_tp.native.compiled import inner, kernel_on_demand
from moss_tp.native.simd import (
    BF16_BYTES,
    FP32_BYTES,
    INT_BYTES,
    exp,
    floats_at,
    halves_at,
    ints_at,
    round_to_bf16,
)

GROUP_PANELS = 4
GROUP = GROUP_PANELS * PANEL
MAX_TASK_ROWS = 96
PART_BYTES = 128 * 2**10  # of one group's panels at a time: they stay in the second cache

# sqrt(8 / pi): gelu_tanh(x) = x * sigmoid(GELU_SCALE * (x + GELU_CUBIC * x**3))
GELU_SCALE, GELU_CUBIC, ONE = map(np.float32, (1.5957691216057308, 0.044715, 1))

HEAD_PARAMS, TARGET_PARAMS = 8, 6


@dataclass(frozen=True)
class Packed:
    """Weights `(outputs, inputs)` in panels, and their bias, padded to whole groups."""

    panels: Tensor  # (groups * GROUP_PANELS, inputs * PANEL) bf16, in `product`'s order
    bias: Tensor  # (groups * GROUP,) fp32
    outputs: int
    inputs: int
    product: Product

    @classmethod
    def pack(cls, dense: DenseWeight, product: Product | None = None) -> Self:
        """For `product`, or the best that there is for such weights on this machine."""
        weight, bias = dense.weight, dense.bias
        outputs, inputs = weight.shape
        if weight.dtype != torch.bfloat16:
            raise ValueError(f"panels are made of bf16, not of {weight.dtype}")
        product = product or best_product(inputs)
        _kernel_of(product)  # compiled now, so that no request waits
        padded = -(-outputs // GROUP) * GROUP
        rows = weight.new_zeros(padded, inputs)
        rows[:outputs] = weight
        full_bias = torch.zeros(padded)
        if bias is not None:
            full_bias[:outputs] = bias
        if product is DOT_BF16:
            panels = rows.view(-1, PANEL, inputs // 2, 2).transpose(1, 2)
        else:
            panels = rows.view(-1, 2, PANEL // 2, inputs).permute(0, 3, 2, 1)
        return cls(panels.reshape(-1, inputs * PANEL), full_bias, outputs, inputs, product)

    @classmethod
    def stack(cls, parts: "tuple[Packed, Packed]") -> "Packed":
        """Both as one; `outputs` is the first's, whose padding stays between them."""
        first, second = parts
        panels = torch.cat((first.panels, second.panels))
        return replace(first, panels=panels, bias=torch.cat((first.bias, second.bias)))

    @property
    def takes(self) -> torch.dtype:
        """What x has to be."""
        return torch.bfloat16 if self.product is DOT_BF16 else torch.float32


def best_product(inputs: int) -> Product:
    """Pairs of bf16, where there are instructions for them and pairs."""
    return DOT_BF16 if has_instructions("avx512bf16") and inputs % 2 == 0 else WIDE_BF16


@dataclass(frozen=True)
class Target:
    """Where columns go: `out (T, columns)` in fp32 or bf16, rows `out.stride(0)` apart."""

    out: Tensor
    has_gelu: bool = False
    residual: Tensor | None = None  # (T, columns) fp32, rows `columns` apart


def add_gemm(program: Program, x: Tensor, packed: Packed, *targets: Target) -> None:
    """`x (T, inputs)` times all of `packed`, into one target or, for a stack, into two.

    Raises ValueError for an x that `packed` does not take.
    """
    rows, inputs = x.shape
    if (inputs, x.dtype) != (packed.inputs, packed.takes) or x.stride(1) != 1:
        raise ValueError(f"x {tuple(x.shape)}, {x.dtype}, for {packed.inputs} in {packed.takes}")
    groups = len(packed.panels) // GROUP_PANELS
    row_blocks = -(-rows // MAX_TASK_ROWS)
    first_groups = -(-targets[0].out.shape[1] // GROUP)
    params: list[int | Tensor] = [
        x, x.stride(0) * x.itemsize, rows, inputs * x.itemsize // X_BYTES, packed.panels,
        packed.bias, row_blocks, first_groups,
    ]  # fmt: skip
    for target in targets:
        out, residual = target.out, 0 if target.residual is None else target.residual
        is_bf16 = int(out.dtype == torch.bfloat16)
        stride = out.stride(0) * out.itemsize
        params += [out, stride, out.shape[1], int(target.has_gelu), residual, is_bf16]
    program.add(_kernel_of(packed.product), groups * row_blocks, params)


def _make_sums(
    product: Product, by_rows: tuple[int, ...], ahead_by_rows: tuple[int, ...]
) -> Callable[..., None]:
    """`sums(rows, x, x_stride, w, stride, steps, c)`: all rows of a task against a group of
    panels, `steps` of them. By the rows of a tile, 0 up to the most: panels at once, as many sums
    as hide the latency of an instruction and fit the registers; and `ahead`, in bytes of a panel.

    Few rows wait for memory, which is asked a little ahead. Several tiles share a panel, and
    while they work each asks for its part of the next one.
    """
    max_rows, rate, most = len(by_rows) - 1, product.step_bytes, by_rows[-1]
    alone = {
        rows: Shape(rows, by_rows[rows], asks=True, is_last=True) for rows in range(1, max_rows + 1)
    }
    # Rows are dealt out evenly: no tile of several is smaller.
    shared = {
        -rows: Shape(rows, most, asks=True) for rows in range((max_rows + 1) // 2, max_rows + 1)
    }
    tile = make_tile(product, alone | shared)

    @inner
    def sums(rows: int, x: int, x_stride: int, w: int, stride: int, steps: int, c: int) -> None:
        tiles = -(-rows // max_rows)
        panels = by_rows[rows] if tiles == 1 else most
        for panel in range(0, GROUP_PANELS, panels):
            row = 0
            for index in range(tiles):
                count = -(-(rows - row) // (tiles - index))
                shape, ahead, own_rate = count, ahead_by_rows[count], rate
                if tiles > 1:
                    shape, own_rate = -count, rate // tiles
                    ahead = panels * stride + index * steps * own_rate
                to = c + (row * GROUP + panel * PANEL) * FP32_BYTES
                own_x, own_w = x + row * x_stride, w + panel * stride
                tile(
                    shape, own_x, x_stride, X_BYTES, own_w, stride, steps, to, GROUP * FP32_BYTES,
                    ahead, own_rate,
                )  # fmt: skip
                row += count

    return sums  # type: ignore[no-any-return]


@inner
def _put(sums: Any, bias: Any, target: int, row: int, column: int) -> None:
    """A task's finished sums into their target, from `row` and `column` on."""
    p = carray(ints_at(target), TARGET_PARAMS)
    out_stride, columns, has_gelu, residual, is_bf16 = p[1], p[2], p[3], p[4], p[5]
    width = min(GROUP, columns - column)
    for i in range(len(sums)):
        values = sums[i]
        for j in range(GROUP):
            values[j] += bias[j]
        if has_gelu:
            for j in range(GROUP):
                x = values[j]
                values[j] = x / (ONE + exp(-GELU_SCALE * (x + GELU_CUBIC * x * x * x)))
        if residual:
            add = floats_at(residual + ((row + i) * columns + column) * FP32_BYTES)
            for j in range(width):
                values[j] += add[j]
        start = p[0] + (row + i) * out_stride
        if is_bf16:
            halves = halves_at(start + column * BF16_BYTES)
            for j in range(width):
                halves[j] = round_to_bf16(values[j])
        else:
            floats = floats_at(start + column * FP32_BYTES)
            for j in range(width):
                floats[j] = values[j]


def _make_task(
    product: Product, by_rows: tuple[int, ...], ahead_by_rows: tuple[int, ...]
) -> Callable[..., None]:
    add_up, step_bytes = _make_sums(product, by_rows, ahead_by_rows), product.step_bytes
    part = PART_BYTES // (GROUP_PANELS * step_bytes)

    @inner
    def run(params: int, task: int) -> None:
        p = carray(ints_at(params), HEAD_PARAMS)
        x, x_stride, num_rows, steps = p[0], p[1], p[2], p[3]
        w, bias, row_blocks, first_groups = p[4], p[5], p[6], p[7]
        group, block = task // row_blocks, task % row_blocks
        start = block * MAX_TASK_ROWS
        rows = min(MAX_TASK_ROWS, num_rows - start)
        x += start * x_stride
        panel_bytes = steps * step_bytes
        panels = w + group * GROUP_PANELS * panel_bytes
        sums = np.zeros((rows, GROUP), np.float32)
        for first in range(0, steps, part):
            own_x, own_w = x + first * X_BYTES, panels + first * step_bytes
            length = min(part, steps - first)
            add_up(rows, own_x, x_stride, own_w, panel_bytes, length, sums.ctypes.data)
        is_second = group >= first_groups
        target = params + (HEAD_PARAMS + is_second * TARGET_PARAMS) * INT_BYTES
        column = (group - is_second * first_groups) * GROUP
        own_bias = carray(floats_at(bias + group * GROUP * FP32_BYTES), GROUP)
        _put(sums, own_bias, target, start, column)

    return run  # type: ignore[no-any-return]


_wide_task = _make_task(WIDE_BF16, (0, 4, 2, 1, 1, 1, 1), (0, 512, 1024, 2048, 8192, 8192, 8192))
_dot_task = _make_task(
    DOT_BF16, (0, *[4] * 5, *[2] * 7), (0, *[1024] * 5, *[2048] * 3, *[4096] * 4)
)


def _kernel_of(product: Product) -> int:
    return _dot_kernel() if product is DOT_BF16 else _wide_kernel()


@kernel_on_demand
def _wide_kernel(params: int, task: int) -> None:
    _wide_task(params, task)


@kernel_on_demand
def _dot_kernel(params: int, task: int) -> None:
    _dot_task(params, task)
