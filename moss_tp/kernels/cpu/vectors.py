"""Instructions on vectors of fp32, as micro-kernels emit them through LLVM.

A vector has some number of lanes; data comes a chunk at a time, as two vectors, its halves. In
fp32 they are its first and its last elements; in bf16 two neighbours share a word, so one load, a
shift and a mask give the even elements and the odd ones; in int8 they are what fp32's are.
"""

from functools import cache
from typing import Any

import numba
from llvmlite import ir
from numba.core.codegen import get_host_cpu_features

from moss_tp.native.simd import BF16_BYTES, F32, FP32_BYTES, I8, I32, call, i64

# What elements are; `elements` says how a row of the cache is made of them.
FP32, BF16, INT8 = 0, 1, 2
LINE = 64  # bytes that memory hands over at once


@cache
def has_instructions(feature: str) -> bool:
    """Whether kernels are compiled with them, in LLVM's word for them: this processor's, less what
    Numba's environment variables forbid."""
    config: Any = numba.config
    told: str = config.CPU_FEATURES
    if told is None:
        told = get_host_cpu_features()
    return f"+{feature}" in told.split(",")


def vector_of(lanes: int) -> Any:
    return ir.VectorType(F32, lanes)


def pointer_to(builder: Any, base: Any, index: Any, size: int, kind: Any) -> Any:
    """To the `index`th of things of `size` bytes that begin at the address `base`."""
    address = builder.add(base, builder.mul(index, i64(size)))
    return builder.inttoptr(address, kind.as_pointer())


def load_halves(builder: Any, base: Any, index: Any, kind: int, lanes: int) -> tuple[Any, Any]:
    """Both halves of the `index`th chunk of FP32, BF16 or INT8 from the address `base` on, in
    fp32."""
    vector, words = vector_of(lanes), ir.VectorType(I32, lanes)
    if kind == INT8:
        chars = ir.VectorType(I8, lanes)
        low = pointer_to(builder, base, index, 2 * lanes, chars)
        pointers = (low, builder.gep(low, [ir.Constant(I32, 1)]))
        loaded = [builder.sext(builder.load(pointer, align=1), words) for pointer in pointers]
        return builder.sitofp(loaded[0], vector), builder.sitofp(loaded[1], vector)
    if kind == FP32:
        low = pointer_to(builder, base, index, 2 * lanes * FP32_BYTES, vector)
        high = builder.gep(low, [ir.Constant(I32, 1)])
        return builder.load(low, align=4), builder.load(high, align=4)
    pairs = builder.load(pointer_to(builder, base, index, 2 * lanes * BF16_BYTES, words), align=4)
    even = builder.shl(pairs, ir.Constant(words, [16] * lanes))
    odd = builder.and_(pairs, ir.Constant(words, [0xFFFF0000] * lanes))
    return builder.bitcast(even, vector), builder.bitcast(odd, vector)


def load_broadcast(builder: Any, base: Any, index: Any, vector: Any) -> Any:
    """The `index`th four bytes from the address `base` on, in every lane of a `vector`."""
    value = builder.load(pointer_to(builder, base, index, FP32_BYTES, vector.element), align=4)
    return splat(builder, value, vector)


def splat(builder: Any, value: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    first = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, undefined, first)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{c.type.count}f32", c.type, [a, b, c])
