"""bf16 and other number formats by their bits; Numba has no bf16 type."""

from typing import Any

from llvmlite import ir
from numba import types

from moss_tp.native.llvm import F32, I16, I32, intrinsic

_F16 = ir.HalfType()


def _bitcast(source: Any, target: Any) -> Any:
    @intrinsic
    def bitcast(context: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), codegen

    return bitcast


fp32_from_bits = _bitcast(types.uint32, types.float32)
fp32_to_bits = _bitcast(types.float32, types.uint32)


@intrinsic
def bf16_to_fp32(context: Any, bits: Any) -> Any:
    """The value of a bf16, given as uint16."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.zext(arguments[0], I32)
        return builder.bitcast(builder.shl(wide, ir.Constant(I32, 16)), F32)

    return types.float32(types.uint16), codegen


@intrinsic
def fp32_to_bf16(context: Any, value: Any) -> Any:
    """The bits of the nearest bf16, ties to even, as torch rounds; NaN stays NaN."""

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
def fp16_to_fp32(context: Any, bits: Any) -> Any:
    """The value of an fp16, given as uint16."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], _F16), F32)

    return types.float32(types.uint16), codegen


@intrinsic
def fp32_to_fp16(context: Any, value: Any) -> Any:
    """The bits of the nearest fp16, ties to even."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], _F16), I16)

    return types.uint16(types.float32), codegen
