"""One query against rows of the cache, by vectors: scores of keys, and weighted sums of values.

A row is `head_dim` elements in fp32 or bf16, taken CHUNK at a time. In bf16 a chunk's even
elements come before its odd ones, as its words hold them: q and sums are in that order, see
`place`. What is left over of a head that CHUNK does not divide is the caller's.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from moss_tp.kernels.cpu.compiled import inner
from moss_tp.kernels.cpu.simd import F32, I32, call, i64, intrinsic
from moss_tp.kernels.cpu.tile import FP32_BYTES, LANES, PANEL, VECTOR, WORDS

CHUNK = PANEL
MANY = 4  # rows at once: each load of q or of the sums serves all of them
_cgutils: Any = cgutils  # untyped


@inner
def place(index: int, is_bf16: int) -> int:
    """Where the element `index` of a row stands among q or sums."""
    if not is_bf16:
        return index
    within = index % CHUNK
    return index - within + within % 2 * LANES + within // 2


def make_score(rows: int, is_bf16: bool) -> Any:
    """`score(q, keys, row_bytes, chunks, out)`: out[i] = q . keys[i] for `rows` rows."""

    @intrinsic
    def score(context: Any, q: Any, keys: Any, row_bytes: Any, chunks: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            q, keys, row_bytes, chunks, out = arguments
            zero = ir.Constant(VECTOR, [0.0] * LANES)
            sums = [[_variable(builder, zero) for _ in range(2)] for _ in range(rows)]
            with _cgutils.for_range(builder, chunks) as loop:
                factors = _load(builder, q, loop.index, is_bf16=False)
                for row in range(rows):
                    key = builder.add(keys, builder.mul(row_bytes, i64(row)))
                    halves = _load(builder, key, loop.index, is_bf16)
                    for factor, half, total in zip(factors, halves, sums[row], strict=True):
                        builder.store(_fma(builder, factor, half, builder.load(total)), total)
            for row, (low, high) in enumerate(sums):
                whole = builder.fadd(builder.load(low), builder.load(high))
                place = builder.add(out, i64(row * FP32_BYTES))
                pointer = builder.inttoptr(place, F32.as_pointer())
                builder.store(_sum_lanes(builder, whole), pointer, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return score


def make_accumulate(rows: int, is_bf16: bool) -> Any:
    """`accumulate(weights, values, row_bytes, chunks, sums)`: sums += weights @ values for
    `rows` rows."""

    @intrinsic
    def accumulate(
        context: Any, weights: Any, values: Any, row_bytes: Any, chunks: Any, sums: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weights, values, row_bytes, chunks, sums = arguments
            factors = [_broadcast(builder, weights, row) for row in range(rows)]
            with _cgutils.for_range(builder, chunks) as loop:
                totals = list(_load(builder, sums, loop.index, is_bf16=False))
                for row, factor in enumerate(factors):
                    value = builder.add(values, builder.mul(row_bytes, i64(row)))
                    halves = _load(builder, value, loop.index, is_bf16)
                    totals = [
                        _fma(builder, factor, half, total)
                        for half, total in zip(halves, totals, strict=True)
                    ]
                for half, total in enumerate(totals):
                    pointer = _pointer(builder, sums, loop.index, CHUNK * FP32_BYTES, VECTOR)
                    place = builder.gep(pointer, [ir.Constant(I32, half)])
                    builder.store(total, place, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return accumulate


def _load(builder: Any, row: Any, chunk: Any, is_bf16: bool) -> tuple[Any, Any]:
    """Both halves of a row's chunk, in fp32."""
    if not is_bf16:
        low = _pointer(builder, row, chunk, CHUNK * FP32_BYTES, VECTOR)
        high = builder.gep(low, [ir.Constant(I32, 1)])
        return builder.load(low, align=4), builder.load(high, align=4)
    words = builder.load(_pointer(builder, row, chunk, CHUNK * 2, WORDS), align=4)
    even = builder.shl(words, ir.Constant(WORDS, [16] * LANES))
    odd = builder.and_(words, ir.Constant(WORDS, [0xFFFF0000] * LANES))
    return builder.bitcast(even, VECTOR), builder.bitcast(odd, VECTOR)


def _pointer(builder: Any, base: Any, index: Any, size: int, kind: Any) -> Any:
    address = builder.add(base, builder.mul(index, i64(size)))
    return builder.inttoptr(address, kind.as_pointer())


def _variable(builder: Any, value: Any) -> Any:
    pointer = _cgutils.alloca_once(builder, VECTOR)
    builder.store(value, pointer)
    return pointer


def _broadcast(builder: Any, base: Any, index: int) -> Any:
    place = builder.add(base, i64(index * FP32_BYTES))
    value = builder.load(builder.inttoptr(place, F32.as_pointer()), align=4)
    undefined = ir.Constant(VECTOR, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(WORDS, [0] * LANES))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{LANES}f32", VECTOR, [a, b, c])


def _sum_lanes(builder: Any, vector: Any) -> Any:
    """By halves, always in one order."""
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
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(I32, 0))
