"""One query against rows of the cache, by vectors: scores of keys, their softmax, and weighted
sums of values.

A row is `head_dim` elements of some kind, taken CHUNK at a time. In bf16 a chunk's even elements
come before its odd ones, as its words hold them: q and sums are in that order, see `place`. What
is left over of a head that CHUNK does not divide is the caller's, and so are the scales of int8.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from moss_tp.kernels.cpu.elements import row_bytes
from moss_tp.kernels.cpu.vectors import (
    BF16,
    FP32,
    INT8,
    LANES,
    LINE,
    VECTOR,
    fma,
    greater,
    load_broadcast,
    load_halves,
    pointer_to,
    splat,
    variable,
)
from moss_tp.native.compiled import inner
from moss_tp.native.simd import F32, FP32_BYTES, I32, emit_exp, i64, intrinsic, prefetch

LOWEST = np.float32(-1e30)  # below any score
MANY = 4  # rows at once: each load of q or of the sums serves all of them
CHUNK = 2 * LANES
_cgutils: Any = cgutils  # untyped


@inner
def place(index: int, kind: int) -> int:
    """Where the element `index` of a row stands among q or sums."""
    if kind != BF16:
        return index
    within = index % CHUNK
    return index - within + within % 2 * LANES + within // 2


def make_score(rows: int, kind: int) -> Any:
    """`score(q, keys, row_bytes, chunks, out)`: out[i] = q . keys[i] for `rows` rows."""

    @intrinsic
    def score(context: Any, q: Any, keys: Any, row_bytes: Any, chunks: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            q, keys, row_bytes, chunks, out = arguments
            zero = ir.Constant(VECTOR, [0.0] * LANES)
            sums = [[variable(builder, zero) for _ in range(2)] for _ in range(rows)]
            with _cgutils.for_range(builder, chunks) as loop:
                factors = load_halves(builder, q, loop.index, FP32, LANES)
                for row in range(rows):
                    key = builder.add(keys, builder.mul(row_bytes, i64(row)))
                    halves = load_halves(builder, key, loop.index, kind, LANES)
                    for factor, half, total in zip(factors, halves, sums[row], strict=True):
                        builder.store(fma(builder, factor, half, builder.load(total)), total)
            for row, (low, high) in enumerate(sums):
                whole = builder.fadd(builder.load(low), builder.load(high))
                pointer = pointer_to(builder, out, i64(row), FP32_BYTES, F32)
                builder.store(_fold(builder, whole, _sum), pointer, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return score


def make_accumulate(rows: int, kind: int) -> Any:
    """`accumulate(weights, values, row_bytes, chunks, sums)`: sums += weights @ values for
    `rows` rows."""

    @intrinsic
    def accumulate(
        context: Any, weights: Any, values: Any, row_bytes: Any, chunks: Any, sums: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weights, values, row_bytes, chunks, sums = arguments
            places = (builder.add(weights, i64(row * FP32_BYTES)) for row in range(rows))
            factors = [load_broadcast(builder, place, VECTOR) for place in places]
            with _cgutils.for_range(builder, chunks) as loop:
                totals = list(load_halves(builder, sums, loop.index, FP32, LANES))
                for row, factor in enumerate(factors):
                    value = builder.add(values, builder.mul(row_bytes, i64(row)))
                    halves = load_halves(builder, value, loop.index, kind, LANES)
                    totals = [
                        fma(builder, factor, half, total)
                        for half, total in zip(halves, totals, strict=True)
                    ]
                for half, total in enumerate(totals):
                    pointer = pointer_to(builder, sums, loop.index, CHUNK * FP32_BYTES, VECTOR)
                    place = builder.gep(pointer, [ir.Constant(I32, half)])
                    builder.store(total, place, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return accumulate


@intrinsic
def highest(context: Any, scores: Any, vectors: Any) -> Any:
    """The greatest of `vectors` times LANES scores from an address on."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scores, vectors = arguments
        found = variable(builder, ir.Constant(VECTOR, [float(LOWEST)] * LANES))
        with _cgutils.for_range(builder, vectors) as loop:
            own = builder.load(_scores_at(builder, scores, loop.index), align=4)
            builder.store(greater(builder, own, builder.load(found)), found)
        return _fold(builder, builder.load(found), greater)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def weigh(context: Any, scores: Any, vectors: Any, highest: Any) -> Any:
    """Scores become exp(score - highest), 0 for LOWEST; their sum."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scores, vectors, highest = arguments
        zero, lowest = (ir.Constant(VECTOR, [value] * LANES) for value in (0.0, float(LOWEST)))
        total = variable(builder, zero)
        peak = splat(builder, highest, VECTOR)
        with _cgutils.for_range(builder, vectors) as loop:
            pointer = _scores_at(builder, scores, loop.index)
            own = builder.load(pointer, align=4)
            weights = emit_exp(builder, builder.fsub(own, peak))
            weights = builder.select(builder.fcmp_ordered(">", own, lowest), weights, zero)
            builder.store(weights, pointer, align=4)
            builder.store(builder.fadd(builder.load(total), weights), total)
        return _fold(builder, builder.load(total), _sum)

    return types.float32(types.int64, types.int64, types.float32), codegen


def _scores_at(builder: Any, scores: Any, index: Any) -> Any:
    return pointer_to(builder, scores, index, LANES * FP32_BYTES, VECTOR)


def _sum(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b)


def _fold(builder: Any, vector: Any, join: Callable[[Any, Any, Any], Any]) -> Any:
    """All lanes into one, by halves, always in one order."""
    width = LANES
    while width > 1:
        width //= 2
        undefined = ir.Constant(vector.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(
                vector,
                undefined,
                ir.Constant(ir.VectorType(I32, width), list(range(start, start + width))),
            )
            for start in (0, width)
        )
        vector = join(builder, low, high)
    return builder.extract_element(vector, ir.Constant(I32, 0))


def over_rows(make: Callable[[int, int], Any]) -> Any:
    """Of `make_score` or `make_accumulate`: the same for any number of rows, MANY at a time.

    `first` and `last` are its arguments before and after the rows' own; from a row to the next
    they go on by so many bytes. Meanwhile, a few lines at a time so that nothing waits for them,
    memory is asked for as many rows `ahead` bytes further on.
    """
    floats, halves, chars = (_loop(make(MANY, kind), make(1, kind)) for kind in (FP32, BF16, INT8))

    @inner
    def over(
        first: int,
        first_step: int,
        rows: int,
        head_dim: int,
        last: int,
        last_step: int,
        count: int,
        kind: int,
        ahead: int,
    ) -> None:
        size, chunks = row_bytes(head_dim, kind), head_dim // CHUNK
        if kind == FP32:
            floats(first, first_step, rows, size, chunks, last, last_step, count, ahead)
        elif kind == BF16:
            halves(first, first_step, rows, size, chunks, last, last_step, count, ahead)
        else:
            chars(first, first_step, rows, size, chunks, last, last_step, count, ahead)

    return over


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
        ahead: int,
    ) -> None:
        row = 0
        while row + MANY <= count:
            own = rows + row * size
            for offset in range(ahead, ahead + MANY * size, LINE):
                prefetch(own + offset)
            many(first + row * first_step, own, size, chunks, last + row * last_step)
            row += MANY
        while row < count:
            one(first + row * first_step, rows + row * size, size, chunks, last + row * last_step)
            row += 1

    return loop
