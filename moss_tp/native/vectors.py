"""fp32 vectors as LLVM values: how micro-kernels load, combine and round them.

Elements in memory are FP32, BF16, FP16 or INT8. Pairs of vectors are 2 * lanes elements at a time:

    FP32, FP16, INT8    the first half of the elements, and the second half
    BF16                the even elements, and the odd ones: two neighbours share a 32-bit word, so
                        one load, a shift and a mask yield both vectors
"""

from functools import cache
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.codegen import get_host_cpu_features

from moss_tp.native.dtypes import BF16, ELEMENT_BYTES, FP16, FP32, INT8
from moss_tp.native.llvm import BF16_BYTES, F32, I8, I32, call, i64, intrinsic

CACHE_LINE = 64  # bytes
_STORED = {FP32: F32, FP16: ir.HalfType(), INT8: I8}


class BFloatVector(ir.Type):  # type: ignore[misc]
    """LLVM's `<count x bfloat>`, which llvmlite lacks."""

    def __init__(self, count: int) -> None:
        self._count = count

    def _to_string(self) -> str:
        return f"<{self._count} x bfloat>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloatVector) and other._count == self._count

    def __hash__(self) -> int:
        return hash(self._to_string())


@cache
def has_cpu_feature(feature: str) -> bool:
    """Whether kernels are compiled for the LLVM feature: this processor's features, unless
    NUMBA_CPU_FEATURES says otherwise."""
    config: Any = numba.config
    features: str = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    return f"+{feature}" in features.split(",")


def fp32_vector(lanes: int) -> Any:
    return ir.VectorType(F32, lanes)


LANES = 16 if has_cpu_feature("avx512f") else 8
VECTOR = fp32_vector(LANES)


def element_pointer(builder: Any, base: Any, index: Any, size: int, type_: Any) -> Any:
    """To the `index`-th element of `size` bytes from the address `base` on."""
    address = builder.add(base, builder.mul(index, i64(size)))
    return builder.inttoptr(address, type_.as_pointer())


def load_vector(builder: Any, address: Any, type_: Any) -> Any:
    return builder.load(builder.inttoptr(address, type_.as_pointer()), align=4)


def store_vector(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def load_vector_pair(
    builder: Any, base: Any, index: Any, dtype: int, lanes: int
) -> tuple[Any, Any]:
    """The `index`-th 2 * lanes elements of `dtype` from the address `base` on, as fp32; see the
    module for their order."""
    if dtype != BF16:
        low = builder.mul(index, i64(2))
        high = builder.add(low, i64(1))
        return (
            load_whole_vector(builder, base, low, dtype, lanes),
            load_whole_vector(builder, base, high, dtype, lanes),
        )
    words = ir.VectorType(I32, lanes)
    pointer = element_pointer(builder, base, index, 2 * lanes * BF16_BYTES, words)
    pairs = builder.load(pointer, align=4)
    return bf16_pairs(builder, pairs)


def bf16_pairs(builder: Any, words: Any) -> tuple[Any, Any]:
    """Two bf16 in each of `words`, as fp32: those in the low halves, and those in the high ones."""
    vector, count = fp32_vector(words.type.count), words.type.count
    low = builder.shl(words, ir.Constant(words.type, [16] * count))
    high = builder.and_(words, ir.Constant(words.type, [0xFFFF0000] * count))
    return builder.bitcast(low, vector), builder.bitcast(high, vector)


def load_whole_vector(builder: Any, base: Any, index: Any, dtype: int, lanes: int) -> Any:
    """The `index`-th `lanes` elements of FP32, FP16 or INT8 from the address `base` on, as fp32
    in their own order."""
    vector, size = fp32_vector(lanes), ELEMENT_BYTES[dtype]
    stored = ir.VectorType(_STORED[dtype], lanes)
    pointer = element_pointer(builder, base, index, lanes * size, stored)
    loaded = builder.load(pointer, align=size)
    if dtype == FP16:
        return builder.fpext(loaded, vector)
    if dtype == INT8:
        return builder.sitofp(builder.sext(loaded, ir.VectorType(I32, lanes)), vector)
    return loaded


def load_broadcast(builder: Any, address: Any, vector: Any) -> Any:
    """The four bytes at `address`, in every lane of the type `vector`."""
    pointer = builder.inttoptr(address, vector.element.as_pointer())
    return splat(builder, builder.load(pointer, align=4), vector)


def to_bf16(builder: Any, low: Any, high: Any) -> Any:
    """Two vectors of 16 fp32 as 32 bf16 in 16 words, two neighbours in each. Needs AVX-512 BF16."""
    lanes = low.type.count
    name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
    rounded = call(builder, name, BFloatVector(2 * lanes), [high, low])
    return builder.bitcast(rounded, ir.VectorType(I32, lanes))


def splat(builder: Any, value: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    first = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, undefined, first)


def maximum(builder: Any, a: Any, b: Any) -> Any:
    """Lane by lane; b where either is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, f"llvm.fma.v{c.type.count}f32", c.type, [a, b, c])


@intrinsic
def fma_fp32(context: Any, a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`, rounded once: Numba's own may be or not."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, "llvm.fma.f32", F32, list(arguments))

    return types.float32(types.float32, types.float32, types.float32), codegen
