"""Stores the sum of a leaf, or adds it to the one before."""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit


@jit
def _store_part(
    pieces: tl.tensor,
    total: tl.tensor,  # (OUT, ROWS)
    num_outputs: tl.tensor,
    num_rows: tl.tensor,
    outputs: tl.tensor,
    is_second: tl.tensor,
) -> None:
    OUT: tl.constexpr = total.shape[0]
    ROWS: tl.constexpr = total.shape[1]
    output, row = tl.arange(0, OUT), tl.arange(0, ROWS)
    at = output[:, None] + row[None, :] * outputs
    is_stored = (output < num_outputs)[:, None] & (row < num_rows)[None, :]
    first = tl.load(pieces + at, is_stored & is_second, -0.0)
    tl.store(pieces + at, first + total, is_stored)


@jit
def store_leaf(
    pieces: tl.tensor,  # the tile's first row and output, (rows, outputs) fp32
    total: tl.tensor,  # (BLOCK_OUT, BLOCK_ROWS)
    num_outputs: tl.tensor,  # from there on
    num_rows: tl.tensor,
    outputs: tl.tensor,
    index: tl.tensor,  # of the leaf in its piece
    LEAVES: tl.constexpr,  # of the piece, one or two
) -> None:
    """A sum waits in memory for the one of its neighbour, since registers are full of that one. It
    comes back by halves for the same reason."""
    OUT: tl.constexpr = total.shape[0]
    ROWS: tl.constexpr = total.shape[1]
    if LEAVES == 1:
        output, row = tl.arange(0, OUT), tl.arange(0, ROWS)
        at = output[:, None] + row[None, :] * outputs
        is_stored = (output < num_outputs)[:, None] & (row < num_rows)[None, :]
        tl.store(pieces + at, total, is_stored)
    else:
        HALF: tl.constexpr = OUT // 2
        halves = tl.permute(tl.reshape(total, (2, HALF, ROWS)), (1, 2, 0))
        low, high = tl.split(halves)
        tl.debug_barrier()  # what other threads of the program have stored
        _store_part(pieces, low, num_outputs, num_rows, outputs, index > 0)
        tl.debug_barrier()
        _store_part(pieces + HALF, high, num_outputs - HALF, num_rows, outputs, index > 0)
