"""A fast exp in fp32, for scalars and for LLVM vectors.

exp(x) = 2**n * exp(r) with n = round(x / ln 2), so |r| <= ln(2) / 2. The polynomial for exp(r)
and the split of ln(2) into two parts are those of Cephes' expf.
"""

from typing import Any

from llvmlite import ir
from numba import types

from moss_tp.native.llvm import I32, call, intrinsic

_LOG2_E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_RANGE = (-60.0, 88.0)  # below, products with the result would be denormal and slow
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves n, rounded, in the lowest bits


@intrinsic
def exp(context: Any, x: Any) -> Any:
    """exp(x) in fp32, within 2 units in the last place; x is clamped to [-60, 88]."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit_exp(builder, arguments[0])

    return types.float32(types.float32), codegen


def emit_exp(builder: Any, x: Any) -> Any:
    """`exp` of an fp32 or of a vector of fp32."""
    fp32, bits, suffix = x.type, I32, "f32"
    if isinstance(fp32, ir.VectorType):
        bits, suffix = ir.VectorType(I32, fp32.count), f"v{fp32.count}f32"

    def fma(a: Any, b: Any, c: Any) -> Any:
        return call(builder, f"llvm.fma.{suffix}", fp32, [a, b, c])

    low, high = (_constant(fp32, bound) for bound in _RANGE)
    x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
    x = builder.select(builder.fcmp_ordered("<", x, high), x, high)
    shifted = fma(x, _constant(fp32, _LOG2_E), _constant(fp32, _ROUND))
    n = builder.fsub(shifted, _constant(fp32, _ROUND))
    r = fma(n, _constant(fp32, -_LN2_HIGH), x)
    r = fma(n, _constant(fp32, -_LN2_LOW), r)
    tail: Any = _constant(fp32, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        tail = fma(tail, r, _constant(fp32, coefficient))
    mantissa = fma(builder.fmul(r, r), tail, builder.fadd(r, _constant(fp32, 1.0)))
    biased = builder.add(builder.bitcast(shifted, bits), _constant(bits, 127))
    power = builder.bitcast(builder.shl(biased, _constant(bits, 23)), fp32)
    return builder.fmul(mantissa, power)


def _constant(type_: Any, value: Any) -> Any:
    """`value` in every lane of a vector type, or as a scalar."""
    is_vector = isinstance(type_, ir.VectorType)
    return ir.Constant(type_, [value] * type_.count if is_vector else value)
