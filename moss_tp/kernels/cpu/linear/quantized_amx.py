"""Products of AMX with a quantized weight. A row or two take the levels from memory straight into
registers, see `amx_levels`. For more, levels are unpacked:

    for each block of runs: its levels as bf16, K steps of the panels of a group side by side
        for each tile or two of rows
            for each run:   sums = x @ levels, in tiles
                            c += scales * sums (+ scales * (middle - zeros) * the row's sum of x)

Levels are exact in bf16. A run of inputs that are no whole chunks is left to dot products: whether
it is depends on the run alone, hence neither on the rows nor on the number of ranks.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.np.numpy_support import carray

from moss_tp.kernels.cpu.linear.amx_levels import CHUNK_UNITS, STEPS, AmxRows
from moss_tp.kernels.cpu.linear.levels import STEP_BYTES, Levels
from moss_tp.kernels.cpu.linear.quantized_task import BLOCK_UNITS, PREFETCH, SpanTask
from moss_tp.kernels.cpu.linear.quantized_tile import ZEROS_OFFSET, make_quantized_tile
from moss_tp.kernels.cpu.microkernel.amx_tile import PanelForm, configure_for, make_block
from moss_tp.kernels.cpu.microkernel.mul_add import GROUP, GROUP_PANELS, PANEL, X_STEP_BYTES
from moss_tp.kernels.cpu.microkernel.tile import TileShape
from moss_tp.native.amx import TILE_ROWS, release_tiles
from moss_tp.native.bf16 import fp16_to_fp32
from moss_tp.native.compiled import inner
from moss_tp.native.llvm import FP32_BYTES, INT_BYTES, i64, intrinsic, loop_range
from moss_tp.native.memory import (
    emit_prefetch,
    fp32_at,
    int8_at,
    int16_at,
    int64_at,
    uint16_at,
)
from moss_tp.native.vectors import CACHE_LINE, fma_fp32, store_vector

READY = PanelForm(GROUP_PANELS * STEP_BYTES, prefetches=False, accumulates=False)
FEW_ROWS, MAX_ROWS = 2, 2 * TILE_ROWS  # of a block
UNIT_BYTES, X_UNIT_BYTES = STEPS * READY.step_bytes, STEPS * X_STEP_BYTES  # unpacked; of a row


def _make_unpack(levels: Levels) -> Any:
    """`unpack(units, count, out)`: `count` units of all panels, as READY has them."""
    line = GROUP_PANELS * levels.unit_bytes

    @intrinsic
    def unpack(context: Any, units: Any, count: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            units, count, out = arguments
            with loop_range(builder, count) as loop:
                w = builder.add(units, builder.mul(loop.index, i64(line)))
                to = builder.add(out, builder.mul(loop.index, i64(UNIT_BYTES)))
                for ahead in range(PREFETCH, PREFETCH + line, CACHE_LINE):
                    emit_prefetch(builder, builder.add(w, i64(ahead)), is_reused=False)
                for panel in range(GROUP_PANELS):
                    unit = levels.load(builder, builder.add(w, i64(panel * levels.unit_bytes)))
                    for number in range(STEPS):
                        (vector,) = levels.step(builder, unit, number)
                        place = number * READY.step_bytes + panel * STEP_BYTES
                        store_vector(builder, vector, builder.add(to, i64(place)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return unpack


@inner
def _add_scaled(
    c: Any,
    sums: Any,
    factors: Any,
    scales: int,
    zero_bytes: int,
    x_sums: int,
    x_sums_stride: int,
) -> None:
    """Of a run and rows: `c` and `sums` are (rows, GROUP), `factors (GROUP,)` is scratch memory. No
    zeros where `x_sums` is 0. Rounds as `quantized_tile` does."""
    halves = uint16_at(scales)
    for i in range(GROUP):
        factors[i] = fp16_to_fp32(halves[i])
    for row in range(c.shape[0]):
        for i in range(GROUP):
            c[row, i] = fma_fp32(factors[i], sums[row, i], c[row, i])
    if x_sums == 0:
        return
    zeros = scales + ZEROS_OFFSET
    for i in range(GROUP):
        zero = int8_at(zeros)[i] if zero_bytes == 1 else int16_at(zeros)[i]
        factors[i] *= np.float32(zero)
    for row in range(c.shape[0]):
        x_sum = fp32_at(x_sums + row * x_sums_stride)[0]
        for i in range(GROUP):
            c[row, i] = fma_fp32(factors[i], x_sum, c[row, i])


@inner
def _has_chunks(starts: int, run: int) -> Any:
    units = int64_at(starts)
    return (units[run + 1] - units[run]) % CHUNK_UNITS == 0


@inner
def _amx_end(task: SpanTask, first: int) -> int:
    """The run behind those of whole chunks that are unpacked together, from `first` on."""
    units, end = int64_at(task.starts), first
    while end < task.end and _has_chunks(task.starts, end):
        if end > first and units[end + 1] - units[first] > BLOCK_UNITS:
            break
        end += 1
    return end


_one, _two = make_block(1, READY), make_block(2, READY)


@inner
def _multiply(rows: int, x: int, x_stride: int, w: int, chunks: int, sums: int) -> None:
    if rows > TILE_ROWS:
        for panel in range(0, GROUP_PANELS, 2):
            panel_sums = sums + panel * PANEL * FP32_BYTES
            _two(x, x_stride, w + panel * STEP_BYTES, STEP_BYTES, chunks, panel_sums)
    else:
        _one(x, x_stride, w, STEP_BYTES, chunks, sums)


@inner
def _add_block(
    task: SpanTask,
    first: int,
    end: int,
    block: int,
    sums: Any,
    factors: Any,
    zero_bytes: int,
    configured: int,
) -> int:
    """All rows times the unpacked runs `first .. end - 1`. Returns how tiles are configured."""
    t, starts, x_starts, row = task, int64_at(task.starts), int64_at(task.x_starts), 0
    while row < t.rows:
        rows = min(t.rows - row, MAX_ROWS)
        configured = configure_for(rows, configured)
        c = carray(fp32_at(t.c + row * GROUP * FP32_BYTES), (rows, GROUP))
        for run in range(first, end):
            x = t.x + row * t.x_stride + x_starts[run] * X_UNIT_BYTES
            w = block + (starts[run] - starts[first]) * UNIT_BYTES
            chunks = (starts[run + 1] - starts[run]) // CHUNK_UNITS
            _multiply(rows, x, t.x_stride, w, chunks, sums.ctypes.data)
            scales = t.scales + run * t.scales_stride
            x_sums = t.x_sums + (row * t.num_runs + run) * FP32_BYTES if t.x_sums else 0
            _add_scaled(c, sums, factors, scales, zero_bytes, x_sums, t.num_runs * FP32_BYTES)
        row += rows
    return configured


def make_amx_products(
    levels: Levels, zero_bytes: int, dot_products: Callable[..., None]
) -> Callable[..., None]:
    """`products(task)`. `dot_products` are for runs that are no whole chunks."""
    unpack, line = _make_unpack(levels), GROUP_PANELS * levels.unit_bytes
    shapes = {rows: TileShape(rows, GROUP_PANELS, True, True) for rows in range(1, FEW_ROWS + 1)}
    few = make_quantized_tile(levels, zero_bytes, PREFETCH, shapes, AmxRows)

    @inner
    def few_rows(t: SpanTask, first: int, end: int) -> None:
        """The runs `first .. end - 1` from memory."""
        starts, x_starts = int64_at(t.starts), int64_at(t.x_starts)
        few(
            t.rows, t.x + x_starts[first] * X_UNIT_BYTES, t.x_stride,
            t.panels + starts[first] * line, t.starts + first * INT_BYTES, end - first,
            t.scales + first * t.scales_stride, t.scales_stride, 0, t.c,
            t.x_sums + first * FP32_BYTES if t.x_sums else 0, t.num_runs * FP32_BYTES,
        )  # fmt: skip

    @inner
    def products(task: SpanTask) -> None:
        t, starts = task, int64_at(task.starts)
        block = np.empty(BLOCK_UNITS * UNIT_BYTES, np.uint8)
        sums, factors = np.empty((MAX_ROWS, GROUP), np.float32), np.empty(GROUP, np.float32)
        first, configured = t.first, -1
        while first < t.end:
            end = _amx_end(t, first)
            if end == first:
                end = first + 1
                dot_products(
                    SpanTask(
                        t.x, t.x_stride, t.panels, t.starts, t.x_starts, t.num_runs, first, end,
                        t.scales, t.scales_stride, t.x_sums, t.rows, t.c,
                    )
                )  # fmt: skip
            elif t.rows <= FEW_ROWS:
                few_rows(t, first, end)
            else:
                units, data = starts[end] - starts[first], block.ctypes.data
                unpack(t.panels + starts[first] * line, units, data)
                configured = _add_block(t, first, end, data, sums, factors, zero_bytes, configured)
            first = end
        release_tiles()

    return products  # type: ignore[no-any-return]
