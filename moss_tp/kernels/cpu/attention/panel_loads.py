"""A K step of a panel, as the multiply-add takes it, from PANEL columns of any dtype of the cache.

INT8 is exact in bf16, and 16-bit numbers in fp32, so the result is that of packed panels.
"""

from typing import Any

from llvmlite import ir

from moss_tp.kernels.cpu.microkernel.mul_add import PANEL, VectorMulAdd
from moss_tp.native.dtypes import BF16, ELEMENT_BYTES
from moss_tp.native.llvm import I16, I32, i64
from moss_tp.native.vectors import fp32_vector, load_vector, load_whole_vector, to_bf16


def panel_bytes(mul_add: VectorMulAdd, dtype: int) -> int:
    """Of a K step."""
    return PANEL * mul_add.x_per_step * ELEMENT_BYTES[dtype]


def load_panel(builder: Any, mul_add: VectorMulAdd, address: Any, dtype: int) -> tuple[Any, ...]:
    """Like `VectorMulAdd.load_weights`; other dtypes than its own are widened."""
    if dtype == mul_add.dtype:
        return mul_add.load_weights(builder, address, i64(0))
    lanes = mul_add.vector.count
    load = _load_bf16 if dtype == BF16 else load_whole_vector
    num_vectors = PANEL * mul_add.x_per_step // lanes
    wide = [load(builder, address, i64(index), dtype, lanes) for index in range(num_vectors)]
    return (to_bf16(builder, *wide),) if mul_add.x_per_step == 2 else tuple(wide)


def _load_bf16(builder: Any, base: Any, index: Any, dtype: int, lanes: int) -> Any:
    """Like `load_whole_vector`."""
    words = ir.VectorType(I32, lanes)
    address = builder.add(base, builder.mul(index, i64(lanes * ELEMENT_BYTES[dtype])))
    bits = builder.zext(load_vector(builder, address, ir.VectorType(I16, lanes)), words)
    shifted = builder.shl(bits, ir.Constant(words, [16] * lanes))
    return builder.bitcast(shifted, fp32_vector(lanes))
