"""Linear layers on packed weights: `y = activation(x @ w.T + bias) + residual`, x and y in fp32.

The weights lie in panels (see `tile`), in fp32 or bf16. One task is GROUP columns for up to
MAX_TASK_ROWS rows: few rows read each weight once from memory, many rows find it in the cache.
Two weights that share an input are one op: `Packed.stack`.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.cpu.tile import MAX_ROWS, PANEL, PANELS, make_tile
from moss_tp.kernels.cpu.vectors import LANES
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.simd import BF16_BYTES, FP32_BYTES, INT_BYTES, exp, floats_at, ints_at

GROUP_PANELS = max(PANELS.values())
GROUP = GROUP_PANELS * PANEL
MAX_TASK_ROWS = 96
K_BLOCK = 1024  # of one group's panels in bf16: 128 KiB, which stay in the second cache

# sqrt(8 / pi): gelu_tanh(x) = x * sigmoid(GELU_SCALE * (x + GELU_CUBIC * x**3))
GELU_SCALE, GELU_CUBIC, ONE = map(np.float32, (1.5957691216057308, 0.044715, 1))

HEAD_PARAMS, TARGET_PARAMS = 8, 5
PANELS_BY_ROWS = (0, *(PANELS[rows] for rows in sorted(PANELS)))
# Bytes within a panel; the more rows, the more time there is.
AHEAD_BY_ROWS = (0, 512, 1024, 2048, 8192, 8192, 8192)


@dataclass(frozen=True)
class Packed:
    """Weights `(outputs, inputs)` in panels, and their bias, padded to whole groups."""

    panels: Tensor  # (groups * GROUP_PANELS, inputs, PANEL)
    bias: Tensor  # (groups * GROUP,) fp32
    outputs: int

    @classmethod
    def pack(cls, weight: Tensor, bias: Tensor | None) -> Self:
        outputs, inputs = weight.shape
        padded = -(-outputs // GROUP) * GROUP
        rows = weight.new_zeros(padded, inputs)
        rows[:outputs] = weight
        full_bias = torch.zeros(padded)
        if bias is not None:
            full_bias[:outputs] = bias
        halves = rows.view(-1, 2, LANES, inputs)
        is_bf16 = weight.dtype == torch.bfloat16
        order = (0, 3, 2, 1) if is_bf16 else (0, 3, 1, 2)
        panels = halves.permute(order).reshape(-1, inputs, PANEL)
        return cls(panels, full_bias, outputs)

    @classmethod
    def stack(cls, parts: "tuple[Packed, Packed]") -> Self:
        """Both as one; `outputs` is the first's, whose padding stays between them."""
        first, second = parts
        panels = torch.cat((first.panels, second.panels))
        return cls(panels, torch.cat((first.bias, second.bias)), first.outputs)


@dataclass(frozen=True)
class Target:
    """Where columns go: `out (T, columns)`, rows `out.stride(0)` apart."""

    out: Tensor
    has_gelu: bool = False
    residual: Tensor | None = None


def add_gemm(program: Program, x: Tensor, packed: Packed, *targets: Target) -> None:
    """`x (T, inputs)` times all of `packed`, into one target or, for a stack, into two."""
    rows, inputs = x.shape
    groups = len(packed.panels) // GROUP_PANELS
    row_blocks = -(-rows // MAX_TASK_ROWS)
    first_groups = -(-targets[0].out.shape[1] // GROUP)
    params: list[int | Tensor] = [
        x, x.stride(0) * FP32_BYTES, rows, inputs, packed.panels, packed.bias, row_blocks,
        first_groups,
    ]  # fmt: skip
    for target in targets:
        out, residual = target.out, 0 if target.residual is None else target.residual
        params += [out, out.stride(0), out.shape[1], int(target.has_gelu), residual]
    program.add(_gemm, groups * row_blocks, params)


_tile_1, _tile_2, _tile_3, _tile_4, _tile_5, _tile_6 = (
    make_tile(rows, is_bf16=True) for rows in sorted(PANELS)
)


@inner
def _sum_rows(
    rows: int, x: int, x_stride: int, w: int, stride: int, k: int, c: int, ahead: int, rate: int
) -> None:
    """`rows` up to MAX_ROWS against the panels that their tile takes at once."""
    if rows == 6:
        _tile_6(x, x_stride, w, stride, k, c, GROUP * FP32_BYTES, ahead, rate)
    elif rows == 5:
        _tile_5(x, x_stride, w, stride, k, c, GROUP * FP32_BYTES, ahead, rate)
    elif rows == 4:
        _tile_4(x, x_stride, w, stride, k, c, GROUP * FP32_BYTES, ahead, rate)
    elif rows == 3:
        _tile_3(x, x_stride, w, stride, k, c, GROUP * FP32_BYTES, ahead, rate)
    elif rows == 2:
        _tile_2(x, x_stride, w, stride, k, c, GROUP * FP32_BYTES, ahead, rate)
    else:
        _tile_1(x, x_stride, w, stride, k, c, GROUP * FP32_BYTES, ahead, rate)


@inner
def _sum_panels(rows: int, x: int, x_stride: int, w: int, stride: int, k: int, c: int) -> None:
    """All rows of a task against a group of panels, `k` elements of them.

    Few rows wait for memory, which is asked a little ahead. Several tiles share a panel, and
    while they work each asks for its part of the next one.
    """
    tiles = -(-rows // MAX_ROWS)
    step = PANELS_BY_ROWS[rows] if tiles == 1 else 1
    for panel in range(0, GROUP_PANELS, step):
        row = 0
        for tile in range(tiles):
            count = -(-(rows - row) // (tiles - tile))
            ahead, rate = AHEAD_BY_ROWS[count], PANEL * BF16_BYTES
            if tiles > 1:
                ahead, rate = stride + tile * (k * rate // tiles), rate // tiles
            sums = c + (row * GROUP + panel * PANEL) * FP32_BYTES
            own = x + row * x_stride
            _sum_rows(count, own, x_stride, w + panel * stride, stride, k, sums, ahead, rate)
            row += count


@inner
def _put(sums: Any, bias: Any, target: int, row: int, column: int) -> None:
    """A task's finished sums into their target, from `row` and `column` on."""
    p = carray(ints_at(target), TARGET_PARAMS)
    out, out_stride, columns, has_gelu, residual = p[0], p[1], p[2], p[3], p[4]
    width = min(GROUP, columns - column)
    for i in range(len(sums)):
        offset = ((row + i) * out_stride + column) * FP32_BYTES
        to = carray(floats_at(out + offset), width)
        values = sums[i]
        for j in range(GROUP):
            values[j] += bias[j]
        if has_gelu:
            for j in range(GROUP):
                x = values[j]
                values[j] = x / (ONE + exp(-GELU_SCALE * (x + GELU_CUBIC * x * x * x)))
        if residual:
            add = carray(floats_at(residual + offset), width)
            for j in range(width):
                values[j] += add[j]
        for j in range(width):
            to[j] = values[j]


@kernel
def _gemm(params: int, task: int) -> None:
    p = carray(ints_at(params), HEAD_PARAMS)
    x, x_stride, num_rows, k = p[0], p[1], p[2], p[3]
    w, bias, row_blocks, first_groups = p[4], p[5], p[6], p[7]
    group, block = task // row_blocks, task % row_blocks
    start = block * MAX_TASK_ROWS
    rows = min(MAX_TASK_ROWS, num_rows - start)
    x += start * x_stride
    panel_bytes = k * PANEL * BF16_BYTES
    panels = w + group * GROUP_PANELS * panel_bytes
    sums = np.zeros((rows, GROUP), np.float32)
    for k_start in range(0, k, K_BLOCK):
        length = min(K_BLOCK, k - k_start)
        weights, own = panels + k_start * PANEL * BF16_BYTES, x + k_start * FP32_BYTES
        _sum_panels(rows, own, x_stride, weights, panel_bytes, length, sums.ctypes.data)
    is_second = group >= first_groups
    target = params + (HEAD_PARAMS + is_second * TARGET_PARAMS) * INT_BYTES
    column = (group - is_second * first_groups) * GROUP
    own_bias = carray(floats_at(bias + group * GROUP * FP32_BYTES), GROUP)
    _put(sums, own_bias, target, start, column)
