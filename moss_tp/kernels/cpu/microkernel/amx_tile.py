"""The products of AMX: up to 32 rows of x times panels, in tile registers.

    rows      sums of tiles                x           weights
    <= 16     1 x 4 panels      0 1 2 3    4           5 6 7, in turn
    <= 32     2 x 2 panels      0 1        4           6 7
                                2 3        5

The sums of a chunk of CHUNK_STEPS K steps are added to those before, see `native.amx`: so a row's
result depends neither on the rows beside it nor on their number, but does on where chunks begin.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    GROUP,
    GROUP_PANELS,
    PANEL,
    X_STEP_BYTES,
)
from moss_tp.native.amx import (
    TILE_ROW_BYTES,
    TILE_ROWS,
    configure_tiles,
    emit_tile_dot,
    emit_tile_load,
    emit_tile_store,
    emit_tile_zero,
    has_amx,
    release_tiles,
    tile_config,
)
from moss_tp.native.compiled import inner
from moss_tp.native.llvm import FP32_BYTES, I64, i64, intrinsic
from moss_tp.native.memory import emit_prefetch
from moss_tp.native.vectors import CACHE_LINE

CHUNK_STEPS = AMX_X16_BF16.steps_at_once
_C_STRIDE = GROUP * FP32_BYTES
_X, _WEIGHTS = 4, {1: (5, 6, 7), 2: (6, 7)}  # by the tiles of rows
_PANELS = {1: 4, 2: 2}
PREFETCH_BYTES = 4096  # ahead of what is read, of each panel

# By the rows of x less one: 1 .. TILE_ROWS of one tile, then as many in a second one.
_ROWS = range(1, TILE_ROWS + 1)
CONFIGS = np.array(
    [tile_config((n, n, n, n, n, 16, 16, 16)) for n in _ROWS]
    + [tile_config((16, 16, n, n, 16, n, 16, 16)) for n in _ROWS]
)


class PanelForm(NamedTuple):
    """How the K steps of a panel lie in memory, and what becomes of their sums."""

    step_bytes: int  # from one to the next
    prefetches: bool
    accumulates: bool  # else c is overwritten


PACKED, FROM_MEMORY = (PanelForm(TILE_ROW_BYTES, prefetches, True) for prefetches in (False, True))


class BlockOperands(NamedTuple):
    """Arguments of a block, as LLVM values: addresses, and strides in bytes."""

    x: Any
    x_stride: Any
    w: Any
    panel_stride: Any
    chunks: Any
    c: Any


def make_block(num_tiles: int, form: PanelForm) -> Any:
    """`block(…)`, the fields of BlockOperands: as many tiles of rows times the panels that go with
    them."""

    @intrinsic
    def block(
        context: Any, x: Any, x_stride: Any, w: Any, panel_stride: Any, chunks: Any, c: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_block(builder, num_tiles, form, BlockOperands(*arguments))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return block


def _emit_block(builder: Any, num_tiles: int, form: PanelForm, op: BlockOperands) -> None:
    """
    entry -> loop over chunks -> end
    """
    panels = _PANELS[num_tiles]
    sums = [
        (i * panels + j, _at(builder, op.c, i * TILE_ROWS * _C_STRIDE + j * TILE_ROW_BYTES))
        for i in range(num_tiles)
        for j in range(panels)
    ]
    for tile, address in sums:
        if form.accumulates:
            emit_tile_load(builder, tile, address, i64(_C_STRIDE))
        else:
            emit_tile_zero(builder, tile)
    entry = builder.block
    body, end = (builder.append_basic_block(name) for name in ("chunk", "end"))
    builder.branch(body)
    builder.position_at_end(body)
    chunk = builder.phi(I64)
    chunk.add_incoming(i64(0), entry)
    _emit_chunk(builder, num_tiles, form, op, chunk)
    following = builder.add(chunk, i64(1))
    chunk.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, op.chunks), body, end)
    builder.position_at_end(end)
    for tile, address in sums:
        emit_tile_store(builder, tile, address, i64(_C_STRIDE))


def _emit_chunk(
    builder: Any, num_tiles: int, form: PanelForm, op: BlockOperands, chunk: Any
) -> None:
    panels, weights, chunk_bytes = (
        _PANELS[num_tiles], _WEIGHTS[num_tiles], CHUNK_STEPS * form.step_bytes
    )  # fmt: skip
    x = builder.add(op.x, builder.mul(chunk, i64(CHUNK_STEPS * X_STEP_BYTES)))
    w = builder.add(op.w, builder.mul(chunk, i64(chunk_bytes)))
    for i in range(num_tiles):
        rows = builder.mul(op.x_stride, i64(i * TILE_ROWS))
        emit_tile_load(builder, _X + i, builder.add(x, rows), op.x_stride)
    for j in range(panels):
        panel = builder.add(w, builder.mul(op.panel_stride, i64(j)))
        if form.prefetches:
            for line in range(0, chunk_bytes, CACHE_LINE):
                emit_prefetch(builder, _at(builder, panel, PREFETCH_BYTES + line))
        tile = weights[j % len(weights)]
        emit_tile_load(builder, tile, panel, i64(form.step_bytes))
        for i in range(num_tiles):
            emit_tile_dot(builder, i * panels + j, _X + i, tile)


def _at(builder: Any, address: Any, offset: int) -> Any:
    return builder.add(address, i64(offset))


@inner
def configure_for(rows: int, before: int) -> int:
    """Configures the tiles for a block of `rows`, if they are not. `before` is what this has
    returned last; at first, -1."""
    if rows != before:
        configure_tiles(CONFIGS[rows - 1].ctypes.data)
    return rows


def on_amx(compiled: Callable[[], int]) -> Callable[[], int]:
    """`compiled`, which raises RuntimeError where there is no AMX."""

    def address() -> int:
        if not has_amx():
            raise RuntimeError("weights are packed for AMX, which this process may not use")
        return compiled()

    return address


def make_amx_multiply() -> Callable[..., None]:
    """See `gemm_kernel`. `steps` are whole chunks."""
    one, two = make_block(1, PACKED), make_block(2, PACKED)
    first_one, first_two = make_block(1, FROM_MEMORY), make_block(2, FROM_MEMORY)

    @inner
    def multiply(rows: int, x: int, x_stride: int, w: int, stride: int, steps: int, c: int) -> None:
        chunks = steps // CHUNK_STEPS
        row, configured = 0, -1
        while row < rows:
            left = min(rows - row, 2 * TILE_ROWS)
            configured = configure_for(left, configured)
            row_x, row_c = x + row * x_stride, c + row * _C_STRIDE
            if left > TILE_ROWS:
                for panel in range(0, GROUP_PANELS, 2):
                    panel_w, panel_c = w + panel * stride, row_c + panel * PANEL * FP32_BYTES
                    if row:
                        two(row_x, x_stride, panel_w, stride, chunks, panel_c)
                    else:
                        first_two(row_x, x_stride, panel_w, stride, chunks, panel_c)
            elif row:
                one(row_x, x_stride, w, stride, chunks, row_c)
            else:
                first_one(row_x, x_stride, w, stride, chunks, row_c)
            row += left
        release_tiles()

    return multiply  # type: ignore[no-any-return]
