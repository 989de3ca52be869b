"""Kernels of products with quantized weights; tasks are those of `gemm_kernel`.

Rows that fit one tile take the levels from memory straight into registers, so each is read once.
More rows share a block of levels that their task has unpacked. Both do the same arithmetic in the
same order, see `quantized_tile`; that of AMX is in `quantized_amx`. Compiled for the levels that
packed weights use.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.np.numpy_support import carray

from moss_tp.kernels.cpu.linear.epilogue import OutputParams, epilogue
from moss_tp.kernels.cpu.linear.gemm_kernel import MAX_TASK_ROWS, X8_TILING, X16_TILING, Tiling
from moss_tp.kernels.cpu.linear.leaf_sums import end_span
from moss_tp.kernels.cpu.linear.levels import (
    DOT_LEVELS_4,
    DOT_LEVELS_8,
    FMA_X8_LEVELS_4,
    FMA_X8_LEVELS_8,
    FMA_X16_LEVELS_4,
    FMA_X16_LEVELS_8,
    Levels,
    Ready,
    unit_steps,
)
from moss_tp.kernels.cpu.linear.quantized_amx import make_amx_products
from moss_tp.kernels.cpu.linear.quantized_task import BLOCK_UNITS, PREFETCH, SpanTask, block_end
from moss_tp.kernels.cpu.linear.quantized_tile import make_quantized_tile, make_unpack
from moss_tp.kernels.cpu.microkernel.amx_tile import on_amx
from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    DOT_X16_BF16,
    FMA_X8_FP32,
    FMA_X16_FP32,
    GROUP,
    GROUP_PANELS,
    PANEL,
    X_STEP_BYTES,
    MulAdd,
)
from moss_tp.kernels.cpu.microkernel.tile import TileShape
from moss_tp.native.compiled import inner, kernel_on_demand
from moss_tp.native.llvm import FP32_BYTES, INT_BYTES
from moss_tp.native.memory import fp32_at, int64_at
from moss_tp.native.params import Address, num_bytes, params_reader


class QuantizedParams(NamedTuple):
    """Followed by one OutputParams, or by two for stacked weights."""

    x: Address
    x_stride: int  # bytes
    num_rows: int
    panels: Address
    starts: Address  # (runs + 1,) int64: where runs start, in units
    x_starts: Address  # (runs,) int64: likewise in x
    num_runs: int
    spans: Address  # (num_spans, 2) int64, see `quantized_pack.Runs`
    num_spans: int
    levels: int  # of sums
    scales: Address
    scales_stride: int  # bytes, from run to run
    bias: Address
    x_sums: Address  # (T, runs) fp32; 0 where all zeros are the middle
    row_blocks: int  # of MAX_TASK_ROWS
    first_groups: int  # groups of panels that belong to the first output


_read_params = params_reader(QuantizedParams)
_PARAMS_BYTES, _OUTPUT_BYTES = num_bytes(QuantizedParams), num_bytes(OutputParams)


def _make_few(levels: Levels, zero_bytes: int, tiling: Tiling) -> Callable[..., None]:
    """`few(task)`: for rows that fit one tile."""
    panels_by_rows = tiling.panels
    shapes = {
        rows: TileShape(rows, panels_by_rows[rows], prefetches=True, is_last_reader=True)
        for rows in range(1, tiling.max_rows + 1)
    }
    tile = make_quantized_tile(levels, zero_bytes, PREFETCH, shapes)
    unit_bytes, unit_x_bytes = levels.unit_bytes, unit_steps(levels.mul_add) * X_STEP_BYTES

    @inner
    def few(task: SpanTask) -> None:
        t, panels = task, panels_by_rows[task.rows]
        starts, x_starts, first = int64_at(t.starts), int64_at(t.x_starts), t.first
        while first < t.end:
            # All panels take a block before the next one, which may come from memory.
            end = t.end if panels == GROUP_PANELS else block_end(t.starts, first, t.end)
            unit = starts[first]
            for panel in range(0, GROUP_PANELS, panels):
                tile(
                    t.rows, t.x + x_starts[first] * unit_x_bytes, t.x_stride,
                    t.panels + (unit * GROUP_PANELS + panel) * unit_bytes,
                    t.starts + first * INT_BYTES, end - first,
                    t.scales + first * t.scales_stride, t.scales_stride, panel,
                    t.c + panel * PANEL * FP32_BYTES,
                    t.x_sums + first * FP32_BYTES if t.x_sums else 0, t.num_runs * FP32_BYTES,
                )  # fmt: skip
            first = end

    return few  # type: ignore[no-any-return]


def _make_many(levels: Levels, zero_bytes: int, tiling: Tiling) -> Callable[..., None]:
    """`many(task)`: for rows of several tiles."""
    max_rows, panels = tiling.max_rows, tiling.panels[-1]
    ready, unpack = Ready(levels.mul_add), make_unpack(levels)
    # Rows are split evenly: no tile of several has fewer than half the most.
    shapes = {rows: TileShape(rows, panels) for rows in range((max_rows + 1) // 2, max_rows + 1)}
    tile = make_quantized_tile(ready, zero_bytes, 0, shapes)
    unit_bytes, unit_x_bytes = levels.unit_bytes, unit_steps(levels.mul_add) * X_STEP_BYTES
    ready_bytes = ready.unit_bytes

    @inner
    def many(task: SpanTask) -> None:
        t, starts, x_starts = task, int64_at(task.starts), int64_at(task.x_starts)
        first = t.first
        tiles = -(-t.rows // max_rows)
        block = np.empty(BLOCK_UNITS * GROUP_PANELS * ready_bytes, np.uint8)
        while first < t.end:
            end, unit = block_end(t.starts, first, t.end), starts[first]
            count = (starts[end] - unit) * GROUP_PANELS
            unpack(t.panels + unit * GROUP_PANELS * unit_bytes, count, block.ctypes.data)
            for panel in range(0, GROUP_PANELS, panels):
                row = 0
                for index in range(tiles):
                    rows = -(-(t.rows - row) // (tiles - index))
                    x_sums = t.x_sums + (row * t.num_runs + first) * FP32_BYTES
                    tile(
                        rows, t.x + row * t.x_stride + x_starts[first] * unit_x_bytes, t.x_stride,
                        block.ctypes.data + panel * ready_bytes,
                        t.starts + first * INT_BYTES, end - first,
                        t.scales + first * t.scales_stride, t.scales_stride, panel,
                        t.c + (row * GROUP + panel * PANEL) * FP32_BYTES,
                        x_sums if t.x_sums else 0, t.num_runs * FP32_BYTES,
                    )  # fmt: skip
                    row += rows
            first = end

    return many  # type: ignore[no-any-return]


def _make_products(levels: Levels, zero_bytes: int, tiling: Tiling) -> Callable[..., None]:
    few, many = (make(levels, zero_bytes, tiling) for make in (_make_few, _make_many))
    max_rows = tiling.max_rows

    @inner
    def products(task: SpanTask) -> None:
        if task.rows <= max_rows:
            few(task)
        else:
            many(task)

    return products  # type: ignore[no-any-return]


def _make_task(levels: Levels, products: Callable[..., None]) -> Callable[..., None]:
    line = GROUP_PANELS * levels.unit_bytes

    @inner
    def run_task(params: int, task: int) -> None:
        p = _read_params(params)
        group, row_block = task // p.row_blocks, task % p.row_blocks
        start = row_block * MAX_TASK_ROWS
        rows = min(MAX_TASK_ROWS, p.num_rows - start)
        spans = carray(int64_at(p.spans), (p.num_spans, 2))
        sums = np.zeros((p.levels, rows, GROUP), np.float32)
        level, first = 0, 0
        for span in range(p.num_spans):
            end = first + spans[span, 0]
            part = SpanTask(
                p.x + start * p.x_stride, p.x_stride,
                p.panels + group * int64_at(p.starts)[p.num_runs] * line,
                p.starts, p.x_starts, p.num_runs, first, end,
                p.scales + group * p.num_runs * p.scales_stride, p.scales_stride,
                p.x_sums + start * p.num_runs * FP32_BYTES if p.x_sums else 0,
                rows, sums[level].ctypes.data,
            )  # fmt: skip
            products(part)
            first, level = end, end_span(sums, level, spans[span, 1])
        is_second = group >= p.first_groups
        output = params + _PARAMS_BYTES + is_second * _OUTPUT_BYTES
        column = (group - is_second * p.first_groups) * GROUP
        bias = carray(fp32_at(p.bias + group * GROUP * FP32_BYTES), GROUP)
        epilogue(sums[0], bias, output, start, column)

    return run_task  # type: ignore[no-any-return]


_dot_4 = _make_products(DOT_LEVELS_4, 1, X16_TILING)
_dot_8 = _make_products(DOT_LEVELS_8, 2, X16_TILING)
_amx_4_task = _make_task(DOT_LEVELS_4, make_amx_products(DOT_LEVELS_4, 1, _dot_4))
_amx_8_task = _make_task(DOT_LEVELS_8, make_amx_products(DOT_LEVELS_8, 2, _dot_8))
_dot_4_task, _dot_8_task = _make_task(DOT_LEVELS_4, _dot_4), _make_task(DOT_LEVELS_8, _dot_8)
_fma_x8_4_task, _fma_x8_8_task, _fma_x16_4_task, _fma_x16_8_task = (
    _make_task(levels, _make_products(levels, zero_bytes, tiling))
    for levels, zero_bytes, tiling in (
        (FMA_X8_LEVELS_4, 1, X8_TILING),
        (FMA_X8_LEVELS_8, 2, X8_TILING),
        (FMA_X16_LEVELS_4, 1, X16_TILING),
        (FMA_X16_LEVELS_8, 2, X16_TILING),
    )
)


@kernel_on_demand
def _amx_4_kernel(params: int, task: int) -> None:
    _amx_4_task(params, task)


@kernel_on_demand
def _amx_8_kernel(params: int, task: int) -> None:
    _amx_8_task(params, task)


@kernel_on_demand
def _dot_4_kernel(params: int, task: int) -> None:
    _dot_4_task(params, task)


@kernel_on_demand
def _dot_8_kernel(params: int, task: int) -> None:
    _dot_8_task(params, task)


@kernel_on_demand
def _fma_x8_4_kernel(params: int, task: int) -> None:
    _fma_x8_4_task(params, task)


@kernel_on_demand
def _fma_x8_8_kernel(params: int, task: int) -> None:
    _fma_x8_8_task(params, task)


@kernel_on_demand
def _fma_x16_4_kernel(params: int, task: int) -> None:
    _fma_x16_4_task(params, task)


@kernel_on_demand
def _fma_x16_8_kernel(params: int, task: int) -> None:
    _fma_x16_8_task(params, task)


QUANTIZED_KERNELS: dict[tuple[MulAdd, int], Callable[[], int]] = {  # by the bits of a level
    (AMX_X16_BF16, 4): on_amx(_amx_4_kernel),
    (AMX_X16_BF16, 8): on_amx(_amx_8_kernel),
    (DOT_X16_BF16, 4): _dot_4_kernel,
    (DOT_X16_BF16, 8): _dot_8_kernel,
    (FMA_X8_FP32, 4): _fma_x8_4_kernel,
    (FMA_X8_FP32, 8): _fma_x8_8_kernel,
    (FMA_X16_FP32, 4): _fma_x16_4_kernel,
    (FMA_X16_FP32, 8): _fma_x16_8_kernel,
}
