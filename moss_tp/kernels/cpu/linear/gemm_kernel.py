"""The GEMM's kernels: blocks of rows times a group of panels, then bias, GELU and residual.

One task is a group of columns for up to MAX_TASK_ROWS rows: few rows read each weight once from
memory, many rows find it in the cache. Compiled for every `MulAdd` that packed weights use.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.np.numpy_support import carray

from moss_tp.kernels.cpu.linear.epilogue import OutputParams, epilogue
from moss_tp.kernels.cpu.linear.leaf_sums import end_span
from moss_tp.kernels.cpu.microkernel.amx_tile import make_amx_multiply, on_amx
from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    DOT_X16_BF16,
    FMA_X8_BF16,
    FMA_X8_FP16,
    FMA_X8_FP32,
    FMA_X16_FP16,
    FMA_X16_FP32,
    GROUP,
    GROUP_PANELS,
    PANEL,
    X_STEP_BYTES,
    MulAdd,
    VectorMulAdd,
)
from moss_tp.kernels.cpu.microkernel.tile import TileShape, make_tile
from moss_tp.native.compiled import inner, kernel_on_demand
from moss_tp.native.llvm import FP32_BYTES
from moss_tp.native.memory import fp32_at, int64_at
from moss_tp.native.params import Address, num_bytes, params_reader

MAX_TASK_ROWS = 96
K_BLOCK_BYTES = 128 * 2**10  # of a group's panels at a time: they stay in the L2 cache


class GemmParams(NamedTuple):
    """Followed by one OutputParams, or by two for stacked weights."""

    x: Address
    x_stride: int  # bytes
    num_rows: int
    steps: int  # K steps
    panels: Address
    spans: Address  # (num_spans, 3) int64, see `pack.PackedWeight`
    num_spans: int
    levels: int  # of sums
    bias: Address
    row_blocks: int  # of MAX_TASK_ROWS
    first_groups: int  # groups that belong to the first output


_read_gemm = params_reader(GemmParams)
_GEMM_BYTES, _OUTPUT_BYTES = num_bytes(GemmParams), num_bytes(OutputParams)


class Tiling(NamedTuple):
    """Indexed by the rows of a tile.

    A tile takes as many panels at once as hide the latency of an instruction, while its sums still
    fit the registers. Prefetch distances are in bytes of a panel. A single tile waits for memory,
    so it prefetches its own panels a little ahead. Several tiles share a panel, and each prefetches
    its part of the next one.
    """

    panels: tuple[int, ...]
    prefetch: tuple[int, ...]

    @property
    def max_rows(self) -> int:
        return len(self.panels) - 1


# For 16 registers, where a panel takes two, and for 32.
X8_TILING = Tiling((0, 4, 2, 1, 1, 1, 1), (0, 512, 1024, 2048, 8192, 8192, 8192))
X16_TILING = Tiling((0, *[4] * 5, *[2] * 7), (0, *[1024] * 5, *[2048] * 3, *[4096] * 4))


def _tile_shapes(tiling: Tiling) -> dict[int, TileShape]:
    """By rows for a tile that has its panels to itself, by negative rows for one of several."""
    max_rows, shared_panels = tiling.max_rows, tiling.panels[-1]
    alone = {
        rows: TileShape(rows, tiling.panels[rows], prefetches=True, is_last_reader=True)
        for rows in range(1, max_rows + 1)
    }
    # Rows are split evenly: no tile of several has fewer than half the most.
    shared = {
        -rows: TileShape(rows, shared_panels, prefetches=True)
        for rows in range((max_rows + 1) // 2, max_rows + 1)
    }
    return alone | shared


def _make_multiply(mul_add: VectorMulAdd, tiling: Tiling) -> Callable[..., None]:
    """`multiply(rows, x, x_stride, w, stride, steps, c)`: adds all rows of a task times a group
    of panels, over `steps` K steps, to c. Each sum takes the K steps in order, whatever the tile,
    so it does not depend on the rows beside it."""
    panels_by_rows, prefetch_by_rows = tiling
    max_rows, shared_panels = tiling.max_rows, panels_by_rows[-1]
    rate = mul_add.panel_step_bytes
    tile = make_tile(mul_add, _tile_shapes(tiling))

    @inner
    def multiply(rows: int, x: int, x_stride: int, w: int, stride: int, steps: int, c: int) -> None:
        tiles = -(-rows // max_rows)
        panels = panels_by_rows[rows] if tiles == 1 else shared_panels
        for panel in range(0, GROUP_PANELS, panels):
            row = 0
            for index in range(tiles):
                count = -(-(rows - row) // (tiles - index))
                shape, prefetch, prefetch_rate = count, prefetch_by_rows[count], rate
                if tiles > 1:
                    shape, prefetch_rate = -count, rate // tiles
                    prefetch = panels * stride + index * steps * prefetch_rate
                tile_c = c + (row * GROUP + panel * PANEL) * FP32_BYTES
                tile_x, tile_w = x + row * x_stride, w + panel * stride
                tile(
                    shape, tile_x, x_stride, X_STEP_BYTES, tile_w, stride, steps, tile_c,
                    GROUP * FP32_BYTES, prefetch, prefetch_rate,
                )  # fmt: skip
                row += count

    return multiply  # type: ignore[no-any-return]


def _make_task(mul_add: MulAdd, multiply: Callable[..., None]) -> Callable[..., None]:
    step_bytes = mul_add.panel_step_bytes
    k_block = K_BLOCK_BYTES // (GROUP_PANELS * step_bytes)

    @inner
    def run_task(params: int, task: int) -> None:
        p = _read_gemm(params)
        group, row_block = task // p.row_blocks, task % p.row_blocks
        start = row_block * MAX_TASK_ROWS
        rows = min(MAX_TASK_ROWS, p.num_rows - start)
        x = p.x + start * p.x_stride
        panel_bytes = p.steps * step_bytes
        panels = p.panels + group * GROUP_PANELS * panel_bytes
        spans = carray(int64_at(p.spans), (p.num_spans, 3))
        sums = np.zeros((p.levels, rows, GROUP), np.float32)
        level, w = 0, panels
        for span in range(p.num_spans):
            steps, c = spans[span, 1], sums[level].ctypes.data
            span_x = x + spans[span, 0] * X_STEP_BYTES
            for first in range(0, steps, k_block):
                block_x, block_w = span_x + first * X_STEP_BYTES, w + first * step_bytes
                length = min(k_block, steps - first)
                multiply(rows, block_x, p.x_stride, block_w, panel_bytes, length, c)
            w += steps * step_bytes
            level = end_span(sums, level, spans[span, 2])
        is_second = group >= p.first_groups
        output = params + _GEMM_BYTES + is_second * _OUTPUT_BYTES
        column = (group - is_second * p.first_groups) * GROUP
        bias = carray(fp32_at(p.bias + group * GROUP * FP32_BYTES), GROUP)
        epilogue(sums[0], bias, output, start, column)

    return run_task  # type: ignore[no-any-return]


_fma_x8_bf16_task = _make_task(FMA_X8_BF16, _make_multiply(FMA_X8_BF16, X8_TILING))
_fma_x8_fp16_task = _make_task(FMA_X8_FP16, _make_multiply(FMA_X8_FP16, X8_TILING))
_fma_x8_fp32_task = _make_task(FMA_X8_FP32, _make_multiply(FMA_X8_FP32, X8_TILING))
_fma_x16_fp16_task = _make_task(FMA_X16_FP16, _make_multiply(FMA_X16_FP16, X16_TILING))
_fma_x16_fp32_task = _make_task(FMA_X16_FP32, _make_multiply(FMA_X16_FP32, X16_TILING))
_dot_x16_bf16_task = _make_task(DOT_X16_BF16, _make_multiply(DOT_X16_BF16, X16_TILING))
_amx_x16_bf16_task = _make_task(AMX_X16_BF16, make_amx_multiply())


@kernel_on_demand
def _fma_x8_bf16(params: int, task: int) -> None:
    _fma_x8_bf16_task(params, task)


@kernel_on_demand
def _fma_x8_fp16(params: int, task: int) -> None:
    _fma_x8_fp16_task(params, task)


@kernel_on_demand
def _fma_x8_fp32(params: int, task: int) -> None:
    _fma_x8_fp32_task(params, task)


@kernel_on_demand
def _fma_x16_fp16(params: int, task: int) -> None:
    _fma_x16_fp16_task(params, task)


@kernel_on_demand
def _fma_x16_fp32(params: int, task: int) -> None:
    _fma_x16_fp32_task(params, task)


@kernel_on_demand
def _dot_x16_bf16(params: int, task: int) -> None:
    _dot_x16_bf16_task(params, task)


@kernel_on_demand
def _amx_x16_bf16(params: int, task: int) -> None:
    _amx_x16_bf16_task(params, task)


KERNELS: dict[MulAdd, Callable[[], int]] = {
    FMA_X8_BF16: _fma_x8_bf16,
    FMA_X8_FP16: _fma_x8_fp16,
    FMA_X8_FP32: _fma_x8_fp32,
    FMA_X16_FP16: _fma_x16_fp16,
    FMA_X16_FP32: _fma_x16_fp32,
    DOT_X16_BF16: _dot_x16_bf16,
    AMX_X16_BF16: on_amx(_amx_x16_bf16),
}
