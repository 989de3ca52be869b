"""The products of AMX: up to 32 rows of x times panels, in tile registers.

    rows      sums of tiles                x           weights
    <= 16     1 x 4 panels      0 1 2 3    4           5 6 7, in turn
    <= 32     2 x 2 panels      0 1        4           6 7
                                2 3        5

The sums of a chunk of CHUNK_STEPS K steps are added to those before, see `native.amx`: so a row's
result depends neither on the rows beside it nor on their number, but does on where chunks begin.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from moss_tp.kernels.cpu.linear.mul_add import AMX_X16_BF16, PANEL
from moss_tp.kernels.cpu.linear.pack import GROUP, GROUP_PANELS
from moss_tp.native.amx import (
    TILE_ROW_BYTES,
    TILE_ROWS,
    configure_tiles,
    emit_tile_dot,
    emit_tile_load,
    emit_tile_store,
    release_tiles,
    tile_config,
)
from moss_tp.native.compiled import inner
from moss_tp.native.llvm import FP32_BYTES, I64, i64, intrinsic
from moss_tp.native.memory import emit_prefetch
from moss_tp.native.vectors import CACHE_LINE

CHUNK_STEPS = AMX_X16_BF16.steps_at_once
CHUNK_BYTES = CHUNK_STEPS * AMX_X16_BF16.panel_step_bytes  # of a panel
_C_STRIDE = GROUP * FP32_BYTES
_X, _WEIGHTS = 4, {1: (5, 6, 7), 2: (6, 7)}  # by the tiles of rows
_PANELS = {1: 4, 2: 2}
PREFETCH_BYTES = 4096  # ahead of what is read, of each panel

# By the rows of x: first TILE_ROWS + 1 .. 2 * TILE_ROWS of two tiles, then 1 .. TILE_ROWS of one.
_ROWS = range(TILE_ROWS + 1)
CONFIGS = np.array(
    [tile_config((16, 16, n, n, 16, n, 16, 16)) for n in _ROWS]
    + [tile_config((n, n, n, n, n, 16, 16, 16)) for n in _ROWS]
)


def _make_block(num_tiles: int, prefetches: bool) -> Any:
    """`block(x, x_stride, w, panel_stride, chunks, c)`: as many tiles of rows times the panels
    that go with them, added to c."""
    panels = _PANELS[num_tiles]

    @intrinsic
    def block(
        context: Any, x: Any, x_stride: Any, w: Any, panel_stride: Any, chunks: Any, c: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, x_stride, w, panel_stride, chunks, c = arguments
            c_tiles = [
                (i * panels + j, _at(builder, c, i * TILE_ROWS * _C_STRIDE + j * TILE_ROW_BYTES))
                for i in range(num_tiles)
                for j in range(panels)
            ]
            for tile, address in c_tiles:
                emit_tile_load(builder, tile, address, i64(_C_STRIDE))
            entry = builder.block
            body, end = (builder.append_basic_block(name) for name in ("chunk", "end"))
            builder.branch(body)
            builder.position_at_end(body)
            chunk = builder.phi(I64)
            chunk.add_incoming(i64(0), entry)
            x_chunk = builder.add(x, builder.mul(chunk, i64(CHUNK_STEPS * 4)))
            w_chunk = builder.add(w, builder.mul(chunk, i64(CHUNK_BYTES)))
            for i in range(num_tiles):
                rows = builder.mul(x_stride, i64(i * TILE_ROWS))
                emit_tile_load(builder, _X + i, builder.add(x_chunk, rows), x_stride)
            for j in range(panels):
                panel = builder.add(w_chunk, builder.mul(panel_stride, i64(j)))
                if prefetches:
                    for line in range(0, CHUNK_BYTES, CACHE_LINE):
                        ahead = _at(builder, panel, PREFETCH_BYTES + line)
                        emit_prefetch(builder, ahead, is_reused=True)
                weights = _WEIGHTS[num_tiles][j % len(_WEIGHTS[num_tiles])]
                emit_tile_load(builder, weights, panel, i64(TILE_ROW_BYTES))
                for i in range(num_tiles):
                    emit_tile_dot(builder, i * panels + j, _X + i, weights)
            following = builder.add(chunk, i64(1))
            chunk.add_incoming(following, body)
            builder.cbranch(builder.icmp_signed("<", following, chunks), body, end)
            builder.position_at_end(end)
            for tile, address in c_tiles:
                emit_tile_store(builder, tile, address, i64(_C_STRIDE))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return block


def _at(builder: Any, address: Any, offset: int) -> Any:
    return builder.add(address, i64(offset))


def make_amx_multiply() -> Callable[..., None]:
    """See `gemm_kernel`. `steps` are whole chunks."""
    one, two = _make_block(1, False), _make_block(2, False)
    first_one, first_two = _make_block(1, True), _make_block(2, True)

    @inner
    def multiply(rows: int, x: int, x_stride: int, w: int, stride: int, steps: int, c: int) -> None:
        chunks = steps // CHUNK_STEPS
        row, configured = 0, -1
        while row < rows:
            left = min(rows - row, 2 * TILE_ROWS)
            config = left - TILE_ROWS if left > TILE_ROWS else TILE_ROWS + 1 + left
            if config != configured:
                configure_tiles(CONFIGS[config].ctypes.data)
                configured = config
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
