"""A K step of a panel, as the `MulAdd` takes it, from PANEL columns of any dtype of the cache.

INT8 is exact in bf16, and 16-bit numbers in fp32, so the result is that of packed panels.
"""

from typing import Any

from llvmlite import ir

from moss_tp.kernels.cpu.linear.mul_add import PANEL, MulAdd
from moss_tp.native.dtypes import BF16, FP16, FP32, INT8
from moss_tp.native.llvm import BF16_BYTES, FP32_BYTES, I8, I16, I32, i64
from moss_tp.native.vectors import fp32_vector, load_vector, to_bf16

_ELEMENT_BYTES = {FP32: FP32_BYTES, BF16: BF16_BYTES, FP16: BF16_BYTES, INT8: 1}


def own_dtype(mul_add: MulAdd) -> int:
    """That of the panels it was made for."""
    return BF16 if mul_add.x_per_step == 2 else FP32


def panel_bytes(mul_add: MulAdd, dtype: int) -> int:
    """Of a K step."""
    return PANEL * mul_add.x_per_step * _ELEMENT_BYTES[dtype]


def load_panel(builder: Any, mul_add: MulAdd, address: Any, dtype: int) -> tuple[Any, ...]:
    """Like `MulAdd.load_weights`; other dtypes than its own are widened."""
    if dtype == own_dtype(mul_add):
        return mul_add.load_weights(builder, address, i64(0))
    lanes = mul_add.vector.count
    size = lanes * _ELEMENT_BYTES[dtype]
    wide = [
        _load_wide(builder, builder.add(address, i64(start)), dtype, lanes)
        for start in range(0, panel_bytes(mul_add, dtype), size)
    ]
    return (to_bf16(builder, *wide),) if mul_add.x_per_step == 2 else tuple(wide)


def _load_wide(builder: Any, address: Any, dtype: int, lanes: int) -> Any:
    """`lanes` elements as fp32."""
    vector, words = fp32_vector(lanes), ir.VectorType(I32, lanes)
    if dtype == INT8:
        loaded = load_vector(builder, address, ir.VectorType(I8, lanes))
        return builder.sitofp(builder.sext(loaded, words), vector)
    if dtype == FP16:
        return builder.fpext(
            load_vector(builder, address, ir.VectorType(ir.HalfType(), lanes)), vector
        )
    bits = builder.zext(load_vector(builder, address, ir.VectorType(I16, lanes)), words)
    return builder.bitcast(builder.shl(bits, ir.Constant(words, [16] * lanes)), vector)
