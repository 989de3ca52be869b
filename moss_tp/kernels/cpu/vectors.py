"""Instructions on vectors of fp32, as micro-kernels emit them through LLVM.

A vector has some number of lanes; data comes a chunk at a time, as two vectors, its halves. In
fp32 they are its first and its last elements; in bf16 two neighbours share a word, so one load, a
shift and a mask give the even elements and the odd ones; in int8 they are what fp32's are.
"""

from functools import cache
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features

from moss_tp.native.simd import BF16_BYTES, F32, FP32_BYTES, I8, I16, I32, call, i64

# What elements are; `elements` says how a row of the cache is made of them.
FP32, BF16, INT8 = 0, 1, 2
_cgutils: Any = cgutils  # untyped
LINE = 64  # bytes that memory hands over at once


class Bfloats(ir.Type):  # type: ignore[misc]
    """LLVM's `<count x bfloat>`, which llvmlite has no name for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def _to_string(self) -> str:
        return f"<{self._count} x bfloat>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bfloats) and other._count == self._count

    def __hash__(self) -> int:
        return hash(self._to_string())


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


LANES = 16 if has_instructions("avx512f") else 8
VECTOR = vector_of(LANES)


def variable(builder: Any, value: Any) -> Any:
    """A pointer to a place that holds `value` first."""
    pointer = _cgutils.alloca_once(builder, value.type)
    builder.store(value, pointer)
    return pointer


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


def load_broadcast(builder: Any, place: Any, vector: Any) -> Any:
    """The four bytes at the address `place`, in every lane of a `vector`."""
    pointer = builder.inttoptr(place, vector.element.as_pointer())
    return splat(builder, builder.load(pointer, align=4), vector)


def pair_up(builder: Any, low: Any, high: Any) -> Any:
    """Two vectors of 16 fp32 as 16 words, each of two bf16. AVX-512 BF16."""
    halves = ir.VectorType(I16, 2 * low.type.count)
    rounded = call(
        builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", Bfloats(halves.count), [high, low]
    )
    order = [lane + part * low.type.count for lane in range(low.type.count) for part in (0, 1)]
    plain = builder.bitcast(rounded, halves)
    mask = ir.Constant(ir.VectorType(I32, halves.count), order)
    dealt = builder.shuffle_vector(plain, ir.Constant(halves, ir.Undefined), mask)
    return builder.bitcast(dealt, ir.VectorType(I32, low.type.count))


def splat(builder: Any, value: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    first = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, undefined, first)


def greater(builder: Any, a: Any, b: Any) -> Any:
    """Lane by lane; b where either is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{c.type.count}f32", c.type, [a, b, c])
