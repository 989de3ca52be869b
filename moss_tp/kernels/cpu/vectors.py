"""Instructions on vectors of LANES fp32, as micro-kernels emit them through LLVM.

Data comes CHUNK elements at a time, as two vectors, its halves. In fp32 they are the first and
the last eight; in bf16 two neighbours share a word, so one load, a shift and a mask give the even
elements and the odd ones; in int8 they are what fp32's are.
"""

from typing import Any

from llvmlite import ir

from moss_tp.native.simd import BF16_BYTES, F32, FP32_BYTES, I8, I32, call, i64

# What elements are; `elements` says how a row of the cache is made of them.
FP32, BF16, INT8 = 0, 1, 2
LANES = 8
CHUNK = 2 * LANES
LINE = 64  # bytes that memory hands over at once
VECTOR = ir.VectorType(F32, LANES)
WORDS = ir.VectorType(I32, LANES)
CHARS = ir.VectorType(I8, LANES)


def pointer_to(builder: Any, base: Any, index: Any, size: int, kind: Any) -> Any:
    """To the `index`th of things of `size` bytes that begin at the address `base`."""
    address = builder.add(base, builder.mul(index, i64(size)))
    return builder.inttoptr(address, kind.as_pointer())


def load_halves(builder: Any, base: Any, index: Any, kind: int) -> tuple[Any, Any]:
    """Both halves of the `index`th chunk of FP32, BF16 or INT8 from the address `base` on, in
    fp32."""
    if kind == INT8:
        low = pointer_to(builder, base, index, CHUNK, CHARS)
        high = builder.gep(low, [ir.Constant(I32, 1)])
        return _widen_chars(builder, low), _widen_chars(builder, high)
    if kind == FP32:
        low = pointer_to(builder, base, index, CHUNK * FP32_BYTES, VECTOR)
        high = builder.gep(low, [ir.Constant(I32, 1)])
        return builder.load(low, align=4), builder.load(high, align=4)
    words = builder.load(pointer_to(builder, base, index, CHUNK * BF16_BYTES, WORDS), align=4)
    even = builder.shl(words, ir.Constant(WORDS, [16] * LANES))
    odd = builder.and_(words, ir.Constant(WORDS, [0xFFFF0000] * LANES))
    return builder.bitcast(even, VECTOR), builder.bitcast(odd, VECTOR)


def _widen_chars(builder: Any, pointer: Any) -> Any:
    return builder.sitofp(builder.sext(builder.load(pointer, align=1), WORDS), VECTOR)


def load_broadcast(builder: Any, base: Any, index: Any) -> Any:
    """The `index`th fp32 from the address `base` on, in every lane."""
    value = builder.load(pointer_to(builder, base, index, FP32_BYTES, F32), align=4)
    undefined = ir.Constant(VECTOR, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(WORDS, [0] * LANES))


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{LANES}f32", VECTOR, [a, b, c])
