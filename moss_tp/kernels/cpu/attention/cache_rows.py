"""Rows of fp32 as kernels write them elsewhere: in FP32, BF16 or FP16, or as INT8 and a scale."""

from typing import Any

import numpy as np
import torch

from moss_tp.native.bf16 import fp32_to_bf16, fp32_to_fp16
from moss_tp.native.compiled import inner
from moss_tp.native.dtypes import BF16, FP16, FP32, INT8
from moss_tp.native.llvm import BF16_BYTES, FP32_BYTES
from moss_tp.native.memory import fp32_at, int8_at, uint16_at

_DTYPES = {torch.float32: FP32, torch.bfloat16: BF16, torch.float16: FP16, torch.int8: INT8}
_INVERSE_MAX_INT8 = np.float32(1 / 127)


def row_dtype(dtype: torch.dtype) -> int:
    """The code of a row dtype in kernels. Raises ValueError for one that they do not know."""
    if dtype not in _DTYPES:
        raise ValueError(f"CPU kernels know no rows of {dtype}")
    return _DTYPES[dtype]


@inner
def row_bytes(length: int, dtype: int) -> int:
    """Of a row's elements."""
    if dtype == FP32:
        return length * FP32_BYTES
    return length if dtype == INT8 else length * BF16_BYTES


@inner
def store_row(values: Any, row: int, length: int, dtype: int) -> None:
    """Converts `length` fp32, an array or pointer, into a row at an address; not into INT8."""
    if dtype == FP32:
        row_fp32 = fp32_at(row)
        for i in range(length):
            row_fp32[i] = values[i]
    elif dtype == BF16:
        row_bf16 = uint16_at(row)
        for i in range(length):
            row_bf16[i] = fp32_to_bf16(values[i])
    else:
        row_fp16 = uint16_at(row)
        for i in range(length):
            row_fp16[i] = fp32_to_fp16(values[i])


@inner
def quantize_row(values: Any, row: int, length: int) -> Any:
    """Converts into an INT8 row, as `kernels.kv_cache.quantize` does; returns its scale."""
    absmax = np.float32(0)
    for i in range(length):
        absmax = max(absmax, abs(values[i]))
    scale = absmax * _INVERSE_MAX_INT8
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    row_int8 = int8_at(row)
    for i in range(length):
        row_int8[i] = np.int8(np.rint(values[i] * inverse))
    return scale
