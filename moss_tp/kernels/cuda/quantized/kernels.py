"""Products with a weight of 4 or 8 bits: as `linear.gemm_kernels`, with its tiles unpacked into the
registers that matrix instructions read.

Each value is rounded as `dense()` rounds it and K goes up in the same order, so a product has the
bits that it has with the dense weight.
"""

import triton.language as tl

from moss_tp.kernels.cuda.linear.merge import store_leaf
from moss_tp.kernels.cuda.quantized.unpack import plane_of_4, plane_of_8
from moss_tp.kernels.cuda.runtime.functions import gelu_tanh
from moss_tp.kernels.cuda.runtime.jit import jit, kernel


@jit
def _values_4(
    words: tl.tensor,  # (BLOCK_OUT, PLANE) int16, a tile's
    scales: tl.tensor,  # the tile's first output, (groups, outputs) int32
    output: tl.tensor,  # (BLOCK_OUT,), from there
    outputs: tl.tensor,
    at: tl.tensor,  # K at which the tile begins
    GROUP: tl.constexpr,
    PLANE: tl.constexpr,
    DTYPE: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> tl.tensor:
    """(BLOCK_OUT, BLOCK_K): planes one after the other. They stay in the registers in which they
    were unpacked."""
    scale_0 = tl.load(scales + at // GROUP * outputs + output)[:, None]
    scale_1, scale_2, scale_3 = scale_0, scale_0, scale_0
    if GROUP < 4 * PLANE:
        scale_2 = tl.load(scales + (at + 2 * PLANE) // GROUP * outputs + output)[:, None]
        scale_3 = scale_2
    if GROUP < 2 * PLANE:
        scale_1 = tl.load(scales + (at + PLANE) // GROUP * outputs + output)[:, None]
        scale_3 = tl.load(scales + (at + 3 * PLANE) // GROUP * outputs + output)[:, None]
    even = tl.join(
        plane_of_4(words, scale_0, 0, DTYPE, IS_INTERPRETED),
        plane_of_4(words, scale_2, 2, DTYPE, IS_INTERPRETED),
    )
    odd = tl.join(
        plane_of_4(words, scale_1, 1, DTYPE, IS_INTERPRETED),
        plane_of_4(words, scale_3, 3, DTYPE, IS_INTERPRETED),
    )
    planes = tl.permute(tl.join(even, odd), (0, 2, 3, 1))
    return tl.reshape(planes, (words.shape[0], 4 * PLANE))


@jit
def _values_8(
    words: tl.tensor,
    scales: tl.tensor,
    output: tl.tensor,
    outputs: tl.tensor,
    at: tl.tensor,
    GROUP: tl.constexpr,
    PLANE: tl.constexpr,
    DTYPE: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> tl.tensor:
    """See `_values_4`."""
    scale_0 = tl.load(scales + at // GROUP * outputs + output)[:, None]
    scale_1 = scale_0
    if GROUP < 2 * PLANE:
        scale_1 = tl.load(scales + (at + PLANE) // GROUP * outputs + output)[:, None]
    planes = tl.join(
        plane_of_8(words, scale_0, 0, DTYPE, IS_INTERPRETED),
        plane_of_8(words, scale_1, 1, DTYPE, IS_INTERPRETED),
    )
    return tl.reshape(tl.permute(planes, (0, 2, 1)), (words.shape[0], 2 * PLANE))


@jit
def _product(
    words: tl.tensor,  # the tile's first output, (K / BLOCK_K, outputs, PLANE) int16
    scales: tl.tensor,  # likewise, (groups, outputs) int32
    x: tl.tensor,  # the tile's first row, (rows, K)
    last_output: tl.tensor,  # within the tile
    num_rows: tl.tensor,
    outputs: tl.tensor,
    x_stride: tl.tensor,
    start: tl.tensor,
    first: tl.tensor,  # K of the first range
    second_start: tl.tensor,
    second: tl.tensor,  # K of the second range
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    PLANE: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    HAS_SECOND: tl.constexpr,  # then BLOCK_K divides both ranges, but for the end of x
    IS_EVEN: tl.constexpr,  # BLOCK_K divides x's inputs
    IS_INTERPRETED: tl.constexpr,
) -> tl.tensor:
    """(BLOCK_OUT, BLOCK_ROWS) fp32: the sum over K from `start`, then from `second_start`."""
    BLOCK_K: tl.constexpr = 16 // BITS * PLANE
    DTYPE: tl.constexpr = x.dtype.element_ty
    place, k = tl.arange(0, PLANE), tl.arange(0, BLOCK_K)
    output = tl.minimum(tl.arange(0, BLOCK_OUT), last_output)
    row = tl.arange(0, BLOCK_ROWS)
    is_row = (row < num_rows)[None, :]
    row *= x_stride
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    turn = start + first
    for step in range(start, turn + second, BLOCK_K):
        at = step
        if HAS_SECOND:
            at = step + tl.where(step < turn, 0, second_start - turn)
        tile = words + at // BLOCK_K * (outputs * PLANE)
        w = tl.load(tile + (output[:, None] * PLANE + place[None, :]))
        if IS_EVEN:
            b = tl.load(x + (row[None, :] + (at + k)[:, None]), is_row, 0.0)
        else:
            has = (at + k < turn)[:, None]
            b = tl.load(x + (row[None, :] + (at + k)[:, None]), is_row & has, 0.0)
        if BITS == 4:
            a = _values_4(w, scales, output, outputs, at, GROUP, PLANE, DTYPE, IS_INTERPRETED)
        else:
            a = _values_8(w, scales, output, outputs, at, GROUP, PLANE, DTYPE, IS_INTERPRETED)
        if IS_INTERPRETED:
            total += tl.dot(a.to(tl.float64), b.to(tl.float64), out_dtype=tl.float64).to(tl.float32)
        else:
            total = tl.dot(a, b, total)
            # Waits for it: the registers of `a` must not change before that.
            total = tl.inline_asm_elementwise(
                "", "=f,0", [total], dtype=tl.float32, is_pure=True, pack=1
            )
    return total


@kernel("rows")
def quantized_gemm_kernel(
    words: tl.tensor,  # (K / BLOCK_K, outputs, PLANE) int16
    scales: tl.tensor,  # (groups, outputs) int32
    x: tl.tensor,  # (rows, K)
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
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    PLANE: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    IS_EVEN: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> None:
    """A tile of outputs that are all plain, or all have GELU. See `gemm_kernel`."""
    tile = tl.program_id(1)
    num_plain_tiles = tl.cdiv(num_plain, BLOCK_OUT)
    is_plain = tile < num_plain_tiles
    first = tl.where(is_plain, tile * BLOCK_OUT, num_plain + (tile - num_plain_tiles) * BLOCK_OUT)
    count = tl.where(is_plain, num_plain, outputs) - first
    first_row = tl.program_id(0) * BLOCK_ROWS
    x += first_row.to(tl.int64) * x_stride
    total = _product(
        words + first * PLANE, scales + first, x, count - 1, rows - first_row, outputs, x_stride,
        0, inputs, 0, 0,
        BITS, GROUP, PLANE, BLOCK_OUT, BLOCK_ROWS, False, IS_EVEN, IS_INTERPRETED,
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
def quantized_pieces_kernel(
    words: tl.tensor,  # (K / BLOCK_K, outputs, PLANE) int16
    scales: tl.tensor,  # (groups, outputs) int32
    x: tl.tensor,  # (rows, K)
    pieces: tl.tensor,  # (pieces, rows, outputs) fp32
    rows: tl.tensor,
    outputs: tl.tensor,
    first: tl.tensor,  # of K in a leaf
    second: tl.tensor,
    second_start: tl.tensor,  # of the first leaf
    x_stride: tl.tensor,
    LEAVES: tl.constexpr,  # of a piece
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    PLANE: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    IS_EVEN: tl.constexpr,
    IS_INTERPRETED: tl.constexpr,
) -> None:
    """One piece, for a tile of outputs. See `pieces_kernel`."""
    first_row, first_output = tl.program_id(0) * BLOCK_ROWS, tl.program_id(1) * BLOCK_OUT
    piece = tl.program_id(2)
    x += first_row.to(tl.int64) * x_stride
    pieces += (piece.to(tl.int64) * rows + first_row) * outputs + first_output
    for index in range(0, LEAVES):
        leaf = piece * LEAVES + index
        total = _product(
            words + first_output * PLANE, scales + first_output, x, outputs - first_output - 1,
            rows - first_row, outputs, x_stride,
            leaf * first, first, second_start + leaf * second, second,
            BITS, GROUP, PLANE, BLOCK_OUT, BLOCK_ROWS, True, IS_EVEN, IS_INTERPRETED,
        )  # fmt: skip
        store_leaf(pieces, total, outputs - first_output, rows - first_row, outputs, index, LEAVES)
