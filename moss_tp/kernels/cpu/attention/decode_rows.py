"""One query against rows of the cache, by vectors: q . K, and weights @ V.

A row has `head_dim` elements of a cache dtype, taken CHUNK at a time. BF16 chunks are loaded with
their even elements before their odd ones, so q and the sums are kept in that order as well, see
`lane_order`. The caller handles the elements that are left over where CHUNK does not divide
head_dim, and the scales of INT8 rows.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes
from moss_tp.kernels.cpu.attention.decode_softmax import add_lanes, reduce_lanes
from moss_tp.native.compiled import inner
from moss_tp.native.dtypes import BF16, FP32, INT8
from moss_tp.native.llvm import F32, FP32_BYTES, I32, i64, intrinsic, loop_range, stack_variable
from moss_tp.native.memory import prefetch
from moss_tp.native.vectors import (
    CACHE_LINE,
    LANES,
    VECTOR,
    element_pointer,
    fma,
    load_broadcast,
    load_vector_pair,
)

ROWS_AT_ONCE = 4  # each load of q or of the sums serves all of them
CHUNK = 2 * LANES  # elements


@inner
def lane_order(index: int, dtype: int) -> int:
    """Where the element `index` of a row stands in q and in the sums."""
    if dtype != BF16:
        return index
    offset = index % CHUNK
    return index - offset + offset % 2 * LANES + offset // 2


def _make_dot(rows: int, dtype: int) -> Any:
    """`dot(q, keys, row_bytes, chunks, scores)`: scores[i] = q . keys[i] for `rows` rows."""

    @intrinsic
    def dot(context: Any, q: Any, keys: Any, row_bytes: Any, chunks: Any, scores: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            q, keys, row_bytes, chunks, scores = arguments
            zero = ir.Constant(VECTOR, [0.0] * LANES)
            sums = [[stack_variable(builder, zero) for _ in range(2)] for _ in range(rows)]
            with loop_range(builder, chunks) as loop:
                q_pair = load_vector_pair(builder, q, loop.index, FP32, LANES)
                for row in range(rows):
                    key = builder.add(keys, builder.mul(row_bytes, i64(row)))
                    k_pair = load_vector_pair(builder, key, loop.index, dtype, LANES)
                    for q_part, k_part, total in zip(q_pair, k_pair, sums[row], strict=True):
                        builder.store(fma(builder, q_part, k_part, builder.load(total)), total)
            for row, (low, high) in enumerate(sums):
                both = builder.fadd(builder.load(low), builder.load(high))
                pointer = element_pointer(builder, scores, i64(row), FP32_BYTES, F32)
                builder.store(reduce_lanes(builder, both, add_lanes), pointer, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return dot


def _make_accumulate(rows: int, dtype: int) -> Any:
    """`accumulate(weights, values, row_bytes, chunks, sums)`: sums += weights @ values for
    `rows` rows."""

    @intrinsic
    def accumulate(
        context: Any, weights: Any, values: Any, row_bytes: Any, chunks: Any, sums: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weights, values, row_bytes, chunks, sums = arguments
            addresses = (builder.add(weights, i64(row * FP32_BYTES)) for row in range(rows))
            broadcast = [load_broadcast(builder, address, VECTOR) for address in addresses]
            with loop_range(builder, chunks) as loop:
                totals = list(load_vector_pair(builder, sums, loop.index, FP32, LANES))
                for row, weight in enumerate(broadcast):
                    value = builder.add(values, builder.mul(row_bytes, i64(row)))
                    v_pair = load_vector_pair(builder, value, loop.index, dtype, LANES)
                    totals = [
                        fma(builder, weight, v_part, total)
                        for v_part, total in zip(v_pair, totals, strict=True)
                    ]
                chunk = element_pointer(builder, sums, loop.index, CHUNK * FP32_BYTES, VECTOR)
                for part, total in enumerate(totals):
                    builder.store(total, builder.gep(chunk, [ir.Constant(I32, part)]), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return accumulate


def _for_rows(make: Callable[[int, int], Any]) -> Any:
    """The intrinsic of `make` for any number of rows and any cache dtype.

    `first` and `last` are its arguments before and after the rows; from one row to the next they
    advance by `first_step` and `last_step` bytes. Each ROWS_AT_ONCE rows also prefetch as many
    rows `prefetch_offset` bytes further on.
    """
    fp32, bf16, int8 = (_loop(make(ROWS_AT_ONCE, d), make(1, d)) for d in (FP32, BF16, INT8))

    @inner
    def for_rows(
        first: int,
        first_step: int,
        rows: int,
        head_dim: int,
        last: int,
        last_step: int,
        count: int,
        dtype: int,
        prefetch_offset: int,
    ) -> None:
        size, chunks = row_bytes(head_dim, dtype), head_dim // CHUNK
        if dtype == FP32:
            fp32(first, first_step, rows, size, chunks, last, last_step, count, prefetch_offset)
        elif dtype == BF16:
            bf16(first, first_step, rows, size, chunks, last, last_step, count, prefetch_offset)
        else:
            int8(first, first_step, rows, size, chunks, last, last_step, count, prefetch_offset)

    return for_rows


def _loop(many: Any, one: Any) -> Any:
    @inner
    def loop(
        first: int,
        first_step: int,
        rows: int,
        size: int,
        chunks: int,
        last: int,
        last_step: int,
        count: int,
        prefetch_offset: int,
    ) -> None:
        row = 0
        while row + ROWS_AT_ONCE <= count:
            row_address = rows + row * size
            for offset in range(prefetch_offset, prefetch_offset + ROWS_AT_ONCE * size, CACHE_LINE):
                prefetch(row_address + offset)
            many(first + row * first_step, row_address, size, chunks, last + row * last_step)
            row += ROWS_AT_ONCE
        while row < count:
            one(first + row * first_step, rows + row * size, size, chunks, last + row * last_step)
            row += 1

    return loop


# `dot_rows(q, 0, keys, head_dim, scores, FP32_BYTES, count, dtype, prefetch_offset)` and
# `accumulate_rows(weights, FP32_BYTES, values, head_dim, sums, 0, count, dtype, prefetch_offset)`
dot_rows, accumulate_rows = _for_rows(_make_dot), _for_rows(_make_accumulate)
