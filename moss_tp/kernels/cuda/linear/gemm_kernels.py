"""Products with a weight, as matrix instructions see them: outputs are M, rows are N.

So one row is a tile with fewer columns in use, computed by the same instructions as many rows. K
goes up, step by step, into one fp32 accumulator, whatever the shape of a tile. Rows beyond the last
one are zeros that are not read; outputs beyond are copies of the last: a mask would cost more.

A leaf's K is two ranges, see `leaves`. Steps go through the first, which zeros fill up to a whole
step, then through the second: what a sum's order depends on is in the leaf.

Where a GPU has an engine for it (TMA), tiles of many rows are loaded as such, IS_BULK: no program
waits for addresses then. It fills with zeros what is beyond a tensor.

Offsets within a tile fit into 32 bits, which saves registers; where a tile begins may not.
Addresses of stores are not clamped, so that the compiler sees neighbours and stores 16 bytes at
once.
"""

import triton.language as tl

from moss_tp.kernels.cuda.linear.merge import store_leaf
from moss_tp.kernels.cuda.runtime.functions import gelu_tanh
from moss_tp.kernels.cuda.runtime.jit import jit, kernel


@jit
def _product(
    weight: tl.tensor,  # the tile's first row, (inputs,)
    x: tl.tensor,  # likewise
    last_output: tl.tensor,  # within the tile
    num_rows: tl.tensor,
    inputs: tl.tensor,
    x_stride: tl.tensor,
    start: tl.tensor,
    first: tl.tensor,  # K of the first range
    second_start: tl.tensor,
    second: tl.tensor,  # K of the second range
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_SECOND: tl.constexpr,
    IS_EVEN: tl.constexpr,  # BLOCK_K divides both ranges
    IS_BULK: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> tl.tensor:
    """(BLOCK_OUT, BLOCK_ROWS) fp32: the sum over K from `start`, then from `second_start`."""
    k = tl.arange(0, BLOCK_K)
    output = tl.minimum(tl.arange(0, BLOCK_OUT), last_output) * inputs
    row = tl.arange(0, BLOCK_ROWS)
    is_row = (row < num_rows)[None, :]
    row *= x_stride
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    if IS_BULK:
        a_tiles = tl.make_tensor_descriptor(
            weight, [last_output + 1, inputs], [inputs, 1], [BLOCK_OUT, BLOCK_K]
        )
        b_tiles = tl.make_tensor_descriptor(
            x, [num_rows, inputs], [x_stride, 1], [BLOCK_ROWS, BLOCK_K]
        )
    turn = start + first
    last = turn
    if HAS_SECOND:
        turn = start + tl.cdiv(first, BLOCK_K) * BLOCK_K
        last = turn + second
    for step in range(start, last, BLOCK_K):
        at, stop = step, start + first
        if HAS_SECOND:
            at = step + tl.where(step < turn, 0, second_start - turn)
            stop = tl.where(step < turn, stop, second_start + second)
        if IS_BULK:
            a = a_tiles.load([0, at])
            b = tl.trans(b_tiles.load([0, at]))
        elif IS_EVEN:
            a = tl.load(weight + (output[:, None] + (at + k)[None, :]))
            b = tl.load(x + (row[None, :] + (at + k)[:, None]), is_row, 0.0)
        else:
            has = at + k < stop
            a = tl.load(weight + (output[:, None] + (at + k)[None, :]), has[None, :], 0.0)
            b = tl.load(x + (row[None, :] + (at + k)[:, None]), is_row & has[:, None], 0.0)
        if IS_INTERPRETED:
            total += tl.dot(a.to(tl.float64), b.to(tl.float64), out_dtype=tl.float64).to(tl.float32)
        else:
            total = tl.dot(a, b, total, input_precision="ieee")
    return total


@kernel("rows")
def gemm_kernel(
    weight: tl.tensor,  # (outputs, inputs)
    x: tl.tensor,  # (rows, inputs)
    bias: tl.tensor,  # (outputs,)
    plain: tl.tensor,  # (rows, num_plain)
    gelu: tl.tensor,  # (rows, outputs - num_plain)
    rows: tl.tensor,
    outputs: tl.tensor,
    inputs: tl.tensor,
    num_plain: tl.tensor,
    x_stride: tl.tensor,
    plain_stride: tl.tensor,
    gelu_stride: tl.tensor,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IS_EVEN: tl.constexpr,
    IS_BULK: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> None:
    """A tile of outputs that are all plain, or all have GELU.

    Tiles of rows are neighbours in the grid: programs that run together share weights.
    """
    tile = tl.program_id(1)
    num_plain_tiles = tl.cdiv(num_plain, BLOCK_OUT)
    is_plain = tile < num_plain_tiles
    first = tl.where(is_plain, tile * BLOCK_OUT, num_plain + (tile - num_plain_tiles) * BLOCK_OUT)
    count = tl.where(is_plain, num_plain, outputs) - first
    first_row = tl.program_id(0) * BLOCK_ROWS
    weight += first.to(tl.int64) * inputs
    x += first_row.to(tl.int64) * x_stride
    total = _product(
        weight, x, count - 1, rows - first_row, inputs, x_stride, 0, inputs, 0, 0,
        BLOCK_OUT, BLOCK_ROWS, BLOCK_K, False, IS_EVEN, IS_BULK, IS_INTERPRETED,
    )  # fmt: skip
    output, row = tl.arange(0, BLOCK_OUT), tl.arange(0, BLOCK_ROWS)
    total += tl.load(bias + first + output, output < count, 0.0).to(tl.float32)[:, None]
    out, stride, column = plain, plain_stride, first
    if tile >= num_plain_tiles:
        total = gelu_tanh(total)
        out, stride, column = gelu, gelu_stride, first - num_plain
    out += first_row.to(tl.int64) * stride + column
    at = output[:, None] + row[None, :] * stride
    is_stored = (output < count)[:, None] & (row < rows - first_row)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), is_stored)


@kernel("rows")
def pieces_kernel(
    weight: tl.tensor,  # (outputs, inputs)
    x: tl.tensor,  # (rows, inputs)
    pieces: tl.tensor,  # (pieces, rows, outputs) fp32
    rows: tl.tensor,
    outputs: tl.tensor,
    inputs: tl.tensor,
    first: tl.tensor,  # of K in a leaf
    second: tl.tensor,
    second_start: tl.tensor,  # of the first leaf
    x_stride: tl.tensor,
    LEAVES: tl.constexpr,  # of a piece
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    IS_EVEN: tl.constexpr,
    IS_BULK: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> None:
    """One piece, for a tile of outputs: the sum of a leaf, or of two."""
    first_row, first_output = tl.program_id(0) * BLOCK_ROWS, tl.program_id(1) * BLOCK_OUT
    piece = tl.program_id(2)
    weight += first_output.to(tl.int64) * inputs
    x += first_row.to(tl.int64) * x_stride
    pieces += (piece.to(tl.int64) * rows + first_row) * outputs + first_output
    for index in range(0, LEAVES):
        leaf = piece * LEAVES + index
        total = _product(
            weight, x, outputs - first_output - 1, rows - first_row, inputs, x_stride,
            leaf * first, first, second_start + leaf * second, second,
            BLOCK_OUT, BLOCK_ROWS, BLOCK_K, True, IS_EVEN, IS_BULK, IS_INTERPRETED,
        )  # fmt: skip
        store_leaf(pieces, total, outputs - first_output, rows - first_row, outputs, index, LEAVES)
