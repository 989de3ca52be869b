"""Sums of pieces and LayerNorm, a row a program.

It is one kernel, compiled once for a hidden size: what a launch leaves out is masked. A sum over a
row is a tree that depends on how the compiler spreads the row, so it must not be compiled twice.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import kernel

FROM_STEP_TO_STEP = ("rows", "num_pieces", "eps")
FLAGS = ("has_residual", "has_index", "stores_x", "stores_normed")


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
    MAX_PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    row = tl.load(index + program, mask=has_index != 0, other=0)
    row = tl.where(has_index != 0, row, program).to(tl.int64)
    column = tl.arange(0, BLOCK)
    is_inside = column < hidden
    total = tl.zeros((BLOCK,), tl.float32)
    for piece in tl.static_range(MAX_PIECES):
        at = (row + piece * rows.to(tl.int64)) * hidden
        total += tl.load(pieces + at + column, is_inside & (piece < num_pieces), 0.0)
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
