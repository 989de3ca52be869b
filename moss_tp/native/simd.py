"""What Numba lacks: pointers from addresses, atomics, bf16 as bits, and a fast exp.

Each is an intrinsic of a few LLVM instructions; loops over those on scalars are vectorised by LLVM
for the machine it runs on. Addresses are int64 throughout.
"""

import platform
from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils

_types: Any = types  # partly typed
_cgutils: Any = cgutils

FP32_BYTES, BF16_BYTES, INT_BYTES = 4, 2, 8

F32, I8, I16 = ir.FloatType(), ir.IntType(8), ir.IntType(16)
I32, I64 = ir.IntType(32), ir.IntType(64)

# exp(x) = 2**n * exp(r), |r| <= ln(2)/2. The polynomial and the split of ln(2): Cephes' expf.
_LOG2_E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_EXP_RANGE = (-60.0, 88.0)  # below, products with what comes out would be denormal and slow
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves n, rounded, in the lowest bits


def intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's; called from kernels without the first argument, `context`."""
    return numba.extending.intrinsic(function)


def i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _pointer_cast(element: Any) -> Any:
    @intrinsic
    def cast(context: Any, address: Any) -> Any:
        pointer = _types.CPointer(element)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return cast


bytes_at = _pointer_cast(types.uint8)
chars_at = _pointer_cast(types.int8)
floats_at = _pointer_cast(types.float32)
words_at = _pointer_cast(types.uint32)
halves_at = _pointer_cast(types.uint16)
ints_at = _pointer_cast(types.int64)


def _read_modify_write(operation: str) -> Any:
    @intrinsic
    def modify(context: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], I64.as_pointer())
            return builder.atomic_rmw(operation, pointer, arguments[1], "seq_cst")

        return types.int64(types.int64, types.int64), codegen

    return modify


# On the int64 at an address, in one piece; they return what was there before. Both are full
# barriers: whatever was written before is seen before, and nothing later is read before.
fetch_add = _read_modify_write("add")
exchange = _read_modify_write("xchg")


@intrinsic
def load_acquire(context: Any, address: Any) -> Any:
    """The int64 at `address`, and sight of all that was written before it; nothing after it is
    read before it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def relax(context: Any) -> Any:
    """Between two looks at what another thread is about to write."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def read_cycles(context: Any) -> Any:
    """The processor's clock, which only ever goes up."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, "llvm.readcyclecounter", I64, [])

    return types.int64(), codegen


@intrinsic
def yield_core(context: Any) -> Any:
    """Lets another thread have this core: the one waited for may be without."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "sched_yield", I32, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Asks memory for the line at `address`; harmless where there is none."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit_prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def emit_prefetch(builder: Any, address: Any, stays: bool = True) -> None:
    """`stays`: worth a place in every cache, as it is read more than once."""
    pointer = builder.inttoptr(address, I8.as_pointer())
    to_read = [ir.Constant(I32, flag) for flag in (0, 3 if stays else 0, 1)]
    call(builder, "llvm.prefetch.p0i8", ir.VoidType(), [pointer, *to_read])


@intrinsic
def call_kernel(context: Any, kernel: Any, params: Any, task: Any) -> Any:
    """Calls `void (*kernel)(int64, int64)`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kernel, params, task = arguments
        pointer = ir.FunctionType(ir.VoidType(), [I64, I64]).as_pointer()
        builder.call(builder.inttoptr(kernel, pointer), [params, task])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _reinterpret(source: Any, target: Any) -> Any:
    @intrinsic
    def reinterpret(context: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), codegen

    return reinterpret


as_float = _reinterpret(types.uint32, types.float32)
as_bits = _reinterpret(types.float32, types.uint32)


@intrinsic
def low_half(context: Any, word: Any) -> Any:
    """The bf16 in a word's lower half, as fp32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.shl(arguments[0], ir.Constant(I32, 16)), F32)

    return types.float32(types.uint32), codegen


@intrinsic
def high_half(context: Any, word: Any) -> Any:
    """The bf16 in a word's upper half, as fp32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask = ir.Constant(I32, 0xFFFF0000)
        return builder.bitcast(builder.and_(arguments[0], mask), F32)

    return types.float32(types.uint32), codegen


@intrinsic
def widen(context: Any, half: Any) -> Any:
    """A bf16, as fp32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.zext(arguments[0], I32)
        return builder.bitcast(builder.shl(wide, ir.Constant(I32, 16)), F32)

    return types.float32(types.uint16), codegen


@intrinsic
def round_to_bf16(context: Any, value: Any) -> Any:
    """The nearest bf16, ties to even, as torch rounds; NaN stays NaN."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], I32)
        sixteen = ir.Constant(I32, 16)
        odd = builder.and_(builder.lshr(bits, sixteen), ir.Constant(I32, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(I32, 0x7FFF)))
        half = builder.trunc(builder.lshr(rounded, sixteen), I16)
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.select(is_nan, ir.Constant(I16, 0x7FC0), half)

    return types.uint16(types.float32), codegen


@intrinsic
def exp(context: Any, x: Any) -> Any:
    """exp(x) in fp32, within 2 units of the last place for x in [-60, 88], which it is held to."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_exp(builder, arguments[0])

    return types.float32(types.float32), codegen


def emit_exp(builder: Any, x: Any) -> Any:
    """`exp` of an fp32 or of a vector of them."""
    kind, bits, suffix = x.type, I32, "f32"
    if isinstance(kind, ir.VectorType):
        bits, suffix = ir.VectorType(I32, kind.count), f"v{kind.count}f32"

    def constant(kind: Any, value: Any) -> Any:
        is_vector = isinstance(kind, ir.VectorType)
        return ir.Constant(kind, [value] * kind.count if is_vector else value)

    def fma(a: Any, b: Any, c: Any) -> Any:
        return call(builder, f"llvm.fma.{suffix}", kind, [a, b, c])

    low, high = (constant(kind, bound) for bound in _EXP_RANGE)
    x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
    x = builder.select(builder.fcmp_ordered("<", x, high), x, high)
    shifted = fma(x, constant(kind, _LOG2_E), constant(kind, _ROUND))
    n = builder.fsub(shifted, constant(kind, _ROUND))
    r = fma(n, constant(kind, -_LN2_HIGH), x)
    r = fma(n, constant(kind, -_LN2_LOW), r)
    tail: Any = constant(kind, _EXP_POLYNOMIAL[0])
    for coefficient in _EXP_POLYNOMIAL[1:]:
        tail = fma(tail, r, constant(kind, coefficient))
    mantissa = fma(builder.fmul(r, r), tail, builder.fadd(r, constant(kind, 1.0)))
    biased = builder.add(builder.bitcast(shifted, bits), constant(bits, 127))
    power = builder.bitcast(builder.shl(biased, constant(bits, 23)), kind)
    return builder.fmul(mantissa, power)


def call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Calls an LLVM intrinsic, or a C function of this process."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(_cgutils.get_or_insert_function(builder.module, kind, name), arguments)
