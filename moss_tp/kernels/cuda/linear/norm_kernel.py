"""Sums of pieces and LayerNorm, a row a program.

It is one kernel, compiled once for a hidden size: what a launch leaves out is masked. A sum over a
row is a tree that depends on how the compiler spreads the row, so it must not be compiled twice.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit, kernel

FROM_STEP_TO_STEP = ("rows", "num_pieces", "eps")
FLAGS = ("has_residual", "has_index", "stores_x", "stores_normed")


@jit
def _pair(
    pieces: tl.tensor,  # the first one's row, (size,)
    stride: tl.tensor,
    num_pieces: tl.tensor,
    first: tl.constexpr,
    column: tl.tensor,
    is_inside: tl.tensor,
) -> tl.tensor:
    """The sum of two neighbours. What is no piece is -0, which changes nothing that it is added
    to."""
    left = tl.load(pieces + first * stride + column, is_inside & (first < num_pieces), -0.0)
    right = tl.load(
        pieces + (first + 1) * stride + column, is_inside & (first + 1 < num_pieces), -0.0
    )
    return left + right


@jit
def _tree(
    pieces: tl.tensor,
    stride: tl.tensor,
    num_pieces: tl.tensor,
    column: tl.tensor,
    is_inside: tl.tensor,
) -> tl.tensor:
    """The sum of up to 8 pieces, see `kernels.leaves`."""
    left = _pair(pieces, stride, num_pieces, 0, column, is_inside)
    left += _pair(pieces, stride, num_pieces, 2, column, is_inside)
    right = _pair(pieces, stride, num_pieces, 4, column, is_inside)
    right += _pair(pieces, stride, num_pieces, 6, column, is_inside)
    return left + right


@kernel("size", "num_pieces")
def tree_kernel(
    pieces: tl.tensor,  # (num_pieces, size) fp32
    size: tl.tensor,
    num_pieces: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """The sum of all pieces, to the first."""
    at = tl.program_id(0).to(tl.int64) * BLOCK
    column = tl.arange(0, BLOCK)
    is_inside = column < size - at
    total = _tree(pieces + at, size.to(tl.int64), num_pieces, column, is_inside)
    tl.store(pieces + at + column, total, is_inside)


@kernel(*FROM_STEP_TO_STEP, *FLAGS, unaligned=("index",))
def norm_kernel(
    pieces: tl.tensor,  # (num_pieces, rows, hidden) fp32
    bias: tl.tensor,  # (hidden,), added to pieces
    residual: tl.tensor,  # (rows, hidden)
    index: tl.tensor,  # (programs,) int32: which row each program reads
    x: tl.tensor,  # (programs, hidden)
    weight: tl.tensor,  # (hidden,)
    shift: tl.tensor,  # (hidden,)
    normed: tl.tensor,  # (programs, hidden)
    rows: tl.tensor,
    num_pieces: tl.tensor,
    hidden: tl.tensor,
    eps: tl.tensor,
    has_residual: tl.tensor,
    has_index: tl.tensor,
    stores_x: tl.tensor,
    stores_normed: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    row = tl.load(index + program, mask=has_index != 0, other=0)
    row = tl.where(has_index != 0, row, program).to(tl.int64)
    column = tl.arange(0, BLOCK)
    is_inside = column < hidden
    stride = rows.to(tl.int64) * hidden
    total = _tree(pieces + row * hidden, stride, num_pieces, column, is_inside)
    total += tl.load(bias + column, is_inside & (num_pieces > 0), 0.0).to(tl.float32)
    is_added = is_inside & (has_residual != 0)
    total += tl.load(residual + row * hidden + column, is_added, 0.0).to(tl.float32)
    at = program.to(tl.int64) * hidden + column
    rounded = total.to(x.dtype.element_ty)
    # x may be the residual, and in a short row several threads load what one of them stores.
    tl.debug_barrier()
    tl.store(x + at, rounded, is_inside & (stores_x != 0))

    value = rounded.to(tl.float32)
    mean = tl.sum(value, 0) / hidden
    centred = tl.where(is_inside, value - mean, 0.0)
    variance = tl.sum(centred * centred, 0) / hidden
    scale = tl.div_rn(1.0, tl.sqrt_rn(variance + eps))
    is_normed = is_inside & (stores_normed != 0)
    gain = tl.load(weight + column, is_normed, 0.0).to(tl.float32)
    offset = tl.load(shift + column, is_normed, 0.0).to(tl.float32)
    out = tl.fma(centred * scale, gain, offset)
    tl.store(normed + at, out.to(normed.dtype.element_ty), is_normed)
