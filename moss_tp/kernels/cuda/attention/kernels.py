"""Attention of a tile of rows, in one order of operations whatever the tile.

Per row and head, over the pieces of 128 tokens at positions 0, 128, ... and in each piece over
tiles of 32 tokens (16 in fp32):

    s     = (q . k) scale log2(e)        16 dimensions at a time, in order
    m     = max(m', s)                   the piece's maximum up to here
    p     = 2^(s - m)                    rounded to the model's dtype for the products
    sums  = sums' 2^(m' - m) + p . 1
    acc   = acc' 2^(m' - m) + p . v

and the pieces' (m, sums, acc) merged in order in fp32. The sum of p is a product too: the order of
a reduction depends on a tensor's layout. Tokens behind a row add exact zeros, so it does not matter
how many of them its tile sees, as long as their K and V are finite: 0 times a drafted row's NaN is
NaN for the rows of its tile before it, too. An int8 cache's K scales multiply s, its V scales p, in
fp32.

All products of 16-bit floats are `mma.sync`: from 64 rows on, Triton would choose others. Programs
without work leave at once, since a grid is as large as a plan's tensors.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit, kernel

NO_SCORE = tl.constexpr(float("-inf"))


@jit
def _finite(m: tl.tensor) -> tl.tensor:
    """A maximum to subtract: that of no scores is -inf, and -inf - -inf would be NaN."""
    return tl.where(m == NO_SCORE, 0.0, m)


@jit
def _merged(
    m: tl.tensor,  # (rows,), like sums: totals,
    sums: tl.tensor,
    acc: tl.tensor,  # (rows, D)
    m_piece: tl.tensor,  # and those of the next piece
    sums_piece: tl.tensor,
    acc_piece: tl.tensor,
) -> tl.tensor:
    largest = tl.maximum(m, m_piece)
    old, new = tl.exp2(m - _finite(largest)), tl.exp2(m_piece - _finite(largest))
    sums = tl.fma(sums, old, sums_piece * new)
    acc = tl.fma(acc, tl.broadcast_to(old[:, None], acc.shape), acc_piece * new[:, None])
    return largest, sums, acc


@jit
def _dot(a: tl.tensor, b: tl.tensor, total: tl.tensor, IS_WIDE: tl.constexpr) -> tl.tensor:
    """In the dtype of `a`; `b` may be int8. See `has_wide_dot` for IS_WIDE."""
    if IS_WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b.to(a.dtype), total, input_precision="ieee")


@jit
def _is_in(rows: tl.tensor, dims: tl.tensor, D: tl.constexpr, DP: tl.constexpr) -> tl.tensor:
    """The mask of `rows (N,)` by `dims (DP,)`. A constant one is left away: it would keep Triton
    from loading 16 bytes at once."""
    return rows[:, None] if D == DP else rows[:, None] & (dims < D)[None, :]


@jit
def _add_tokens(
    m: tl.tensor,  # (rows,), of the piece up to here,
    sums: tl.tensor,  # (rows, columns), which are equal,
    acc: tl.tensor,  # (rows, DP)
    q_rows: tl.tensor,  # (rows,) where each row's q begins
    positions: tl.tensor,  # (rows,), -1 where there is no row
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    k_scales: tl.tensor,
    v_scales: tl.tensor,
    table: tl.tensor,  # where the sequence's block table begins
    head: tl.tensor,
    num_heads: tl.tensor,
    first: tl.tensor,  # position of the tile's first token
    end: tl.tensor,  # of the first one that none of the rows sees
    scale: tl.tensor,
    D: tl.constexpr,
    DP: tl.constexpr,
    CHUNK: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    IS_INT8: tl.constexpr,
    IS_WIDE: tl.constexpr,
) -> tl.tensor:
    dtype = q_rows.dtype.element_ty
    tokens = first + tl.arange(0, TOKENS)
    is_written = tokens < end
    block = tl.load(table + tokens // BLOCK_SIZE, mask=is_written, other=0).to(tl.int64)
    slots = (block * num_heads + head) * BLOCK_SIZE + tokens % BLOCK_SIZE
    s = tl.zeros((acc.shape[0], TOKENS), tl.float32)
    for chunk in tl.static_range(0, D, CHUNK):
        dims = chunk + tl.arange(0, CHUNK)
        q = tl.load(q_rows[:, None] + dims[None, :])
        k = tl.load(k_ptr + slots[:, None] * D + dims[None, :], mask=is_written[:, None], other=0)
        s = _dot(q, tl.trans(k), s, IS_WIDE)
    s *= scale
    if IS_INT8:
        s *= tl.load(k_scales + slots, mask=is_written, other=0.0)[None, :]
    s = tl.where(tokens[None, :] <= positions[:, None], s, NO_SCORE)
    largest = tl.maximum(m, tl.max(s, 1))
    old = tl.exp2(m - _finite(largest))[:, None]
    p = tl.exp2(s - _finite(largest)[:, None])
    dims = tl.arange(0, DP)
    places = slots[:, None] * D + dims[None, :]
    v = tl.load(v_ptr + places, mask=_is_in(is_written, dims, D, DP), other=0)
    sums = _dot(
        p.to(dtype),
        tl.full((TOKENS, sums.shape[1]), 1.0, tl.float32).to(dtype),
        sums * old,
        IS_WIDE,
    )
    if IS_INT8:
        p *= tl.load(v_scales + slots, mask=is_written, other=0.0)[None, :]
    acc = _dot(p.to(dtype), v, acc * old, IS_WIDE)
    return largest, sums, acc


@jit
def _first_place(index: tl.tensor, first_row: tl.tensor, places_apart: tl.tensor) -> tl.tensor:
    """Where a tile's first row is in partials: where it is in the step, or with `places_apart`
    places for each tile."""
    return tl.where(places_apart == 0, first_row, index * places_apart)


@kernel(
    "positions_ptr",
    "tables_ptr",
    "tiles_ptr",
    "table_width",
    "num_heads",
    "num_pieces",
    "places_apart",
)
def attend_kernel(
    q_ptr: tl.tensor,  # (T, ...): q (H, D) begins a row
    k_ptr: tl.tensor,  # (blocks, H, BLOCK_SIZE, D)
    v_ptr: tl.tensor,
    k_scales: tl.tensor,  # (blocks, H, BLOCK_SIZE) fp32, like v_scales; None unless IS_INT8
    v_scales: tl.tensor,
    positions_ptr: tl.tensor,  # (T,)
    tables_ptr: tl.tensor,  # (S, table_width)
    tiles_ptr: tl.tensor,  # (N, 3)
    out_ptr: tl.tensor,  # (T, ...): (H, D) begins a row; None where IS_SPLIT
    partials_ptr: tl.tensor,  # (places, H, num_pieces, D) fp32, only where IS_SPLIT,
    stats_ptr: tl.tensor,  # as (places, H, num_pieces, 2): m and the sum of p
    q_stride: tl.tensor,
    out_stride: tl.tensor,
    table_width: tl.tensor,
    num_heads: tl.tensor,
    num_pieces: tl.tensor,
    places_apart: tl.tensor,  # of tiles in partials, see `_first_place`
    scale: tl.tensor,
    ROWS: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,  # the power of two from D
    CHUNK: tl.constexpr,  # dimensions whose scores are added at a time
    PIECE: tl.constexpr,  # tokens
    TOKENS: tl.constexpr,  # of a tile
    BLOCK_SIZE: tl.constexpr,
    IS_INT8: tl.constexpr,
    IS_WIDE: tl.constexpr,
) -> None:
    """A tile's rows and a head: all pieces, or where IS_SPLIT every `num_programs(2)`-th."""
    # Later tiles of a prompt see more: they begin first.
    index = tl.num_programs(0) - 1 - tl.program_id(0)
    tile, head = tiles_ptr + index * 3, tl.program_id(1)
    first_row, end_row = tl.load(tile + 1), tl.load(tile + 2)
    if first_row == end_row:
        return
    end = tl.load(positions_ptr + end_row - 1) + 1
    if tl.program_id(2) * PIECE >= end:
        return
    table = tables_ptr + tl.load(tile).to(tl.int64) * table_width
    rows, dims = first_row + tl.arange(0, ROWS), tl.arange(0, DP)
    is_row = rows < end_row
    positions = tl.load(positions_ptr + rows, mask=is_row, other=-1)
    rows = tl.minimum(rows, end_row - 1).to(tl.int64)
    q_rows = q_ptr + rows * q_stride + head * D
    m = tl.full((ROWS,), NO_SCORE, tl.float32)
    # With more columns than rows in each product, Triton gives each warp columns of its own. Else
    # each warp would compute all columns, and spill.
    sums = tl.zeros((ROWS, 2 * ROWS), tl.float32)
    acc = tl.zeros((ROWS, DP), tl.float32)
    mask = _is_in(is_row, dims, D, DP)
    if IS_SPLIT:
        place = (_first_place(index, first_row, places_apart) * num_heads + head) * num_pieces
        # One piece where the grid has a program for each. A loop keeps registers free.
        for piece in range(tl.program_id(2), tl.cdiv(end, PIECE), tl.num_programs(2)):
            m = tl.full((ROWS,), NO_SCORE, tl.float32)
            sums = tl.zeros((ROWS, 2 * ROWS), tl.float32)
            acc = tl.zeros((ROWS, DP), tl.float32)
            stop = tl.minimum(end, (piece + 1) * PIECE)
            for first in range(piece * PIECE, stop, TOKENS):
                m, sums, acc = _add_tokens(
                    m, sums, acc, q_rows, positions, k_ptr, v_ptr, k_scales, v_scales,
                    table, head, num_heads, first, end, scale,
                    D, DP, CHUNK, TOKENS, BLOCK_SIZE, IS_INT8, IS_WIDE,
                )  # fmt: skip
            # One address and small distances: 64 bits for each row would take registers.
            apart = tl.arange(0, ROWS) * (num_heads * num_pieces)
            values = partials_ptr + (place + piece).to(tl.int64) * D
            tl.store(values + apart[:, None] * D + dims[None, :], acc, mask=mask)
            stats = stats_ptr + (place + piece).to(tl.int64) * 2 + apart * 2
            tl.store(stats, m, mask=is_row)
            tl.store(stats + 1, tl.max(sums, 1), mask=is_row)
    else:
        total_m, total = m, acc
        total_sums = tl.zeros((ROWS,), tl.float32)
        for first in range(0, end, TOKENS):
            m, sums, acc = _add_tokens(
                m, sums, acc, q_rows, positions, k_ptr, v_ptr, k_scales, v_scales,
                table, head, num_heads, first, end, scale,
                D, DP, CHUNK, TOKENS, BLOCK_SIZE, IS_INT8, IS_WIDE,
            )  # fmt: skip
            if ((first + TOKENS) % PIECE == 0) | (first + TOKENS >= end):
                total_m, total_sums, total = _merged(
                    total_m, total_sums, total, m, tl.max(sums, 1), acc
                )
                m = tl.full((ROWS,), NO_SCORE, tl.float32)
                sums = tl.zeros((ROWS, 2 * ROWS), tl.float32)
                acc = tl.zeros((ROWS, DP), tl.float32)
        place = rows[:, None] * out_stride + head * D + dims[None, :]
        out = total / tl.where(is_row, total_sums, 1.0)[:, None]
        tl.store(out_ptr + place, out.to(out_ptr.dtype.element_ty), mask=mask)


@kernel("positions_ptr", "tiles_ptr", "num_heads", "num_pieces", "places_apart")
def merge_kernel(
    positions_ptr: tl.tensor,
    tiles_ptr: tl.tensor,
    out_ptr: tl.tensor,
    partials_ptr: tl.tensor,
    stats_ptr: tl.tensor,
    out_stride: tl.tensor,
    num_heads: tl.tensor,
    num_pieces: tl.tensor,
    places_apart: tl.tensor,
    PIECE: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
) -> None:
    """The pieces of a tile's rows and a head, as `attend_kernel` left them: every
    `num_programs(2)`-th row."""
    index, head = tl.program_id(0), tl.program_id(1)
    tile = tiles_ptr + index * 3
    first_row, end_row = tl.load(tile + 1), tl.load(tile + 2)
    if tl.program_id(2) >= end_row - first_row:
        return
    end = tl.load(positions_ptr + end_row - 1) + 1
    one, dims = tl.arange(0, 1), tl.arange(0, DP)
    mask = _is_in(one == 0, dims, D, DP)
    first_place = _first_place(index, first_row, places_apart).to(tl.int64)
    for row in range(tl.program_id(2), end_row - first_row, tl.num_programs(2)):
        begin = ((first_place + row) * num_heads + head) * num_pieces
        total_m = tl.full((1,), NO_SCORE, tl.float32)
        total_sums = tl.zeros((1,), tl.float32)
        total = tl.zeros((1, DP), tl.float32)
        for piece in tl.range(0, tl.cdiv(end, PIECE), loop_unroll_factor=4):
            place = begin + piece + one
            m, sums = tl.load(stats_ptr + place * 2), tl.load(stats_ptr + place * 2 + 1)
            acc = tl.load(partials_ptr + place[:, None] * D + dims[None, :], mask, 0.0)
            total_m, total_sums, total = _merged(total_m, total_sums, total, m, sums, acc)
        out = out_ptr + (first_row + row).to(tl.int64) * out_stride + head * D
        result = total / total_sums[:, None]
        tl.store((out + dims)[None, :], result.to(out_ptr.dtype.element_ty), mask)
