"""Rows of `head_dim` elements, as the KV cache holds them and kernels write their outputs.

    FP32, BF16   head_dim elements
    INT8         head_dim elements, then the row's scale in fp32: element = int8 * scale

Addresses of rows; `values` is an fp32 array or pointer.
"""

from typing import Any

import numpy as np
import torch

from moss_tp.native.bf16 import bf16_to_fp32, fp32_to_bf16
from moss_tp.native.compiled import inner
from moss_tp.native.dtypes import BF16, FP32, INT8
from moss_tp.native.llvm import BF16_BYTES, FP32_BYTES
from moss_tp.native.memory import fp32_at, int8_at, uint16_at

_DTYPES = {torch.float32: FP32, torch.bfloat16: BF16, torch.int8: INT8}
_INVERSE_MAX_INT8 = np.float32(1 / 127)


def row_dtype(dtype: torch.dtype) -> int:
    """The code of a row dtype in kernels. Raises ValueError for one that they cannot read."""
    if dtype not in _DTYPES:
        raise ValueError(f"CPU kernels read no rows of {dtype}")
    return _DTYPES[dtype]


@inner
def row_bytes(head_dim: int, dtype: int) -> int:
    if dtype == FP32:
        return head_dim * FP32_BYTES
    if dtype == BF16:
        return head_dim * BF16_BYTES
    return head_dim + FP32_BYTES


@inner
def row_scale(row: int, head_dim: int) -> Any:
    """The scale at the end of an INT8 row."""
    return fp32_at(row + head_dim)[0]


@inner
def load_element(row: int, index: int, dtype: int) -> Any:
    """As fp32; an INT8 is not yet multiplied by its row's scale."""
    if dtype == FP32:
        return fp32_at(row)[index]
    if dtype == BF16:
        return bf16_to_fp32(uint16_at(row)[index])
    return np.float32(int8_at(row)[index])


@inner
def store_row(values: Any, row: int, head_dim: int, dtype: int) -> None:
    """Converts `head_dim` fp32 into a row, as `kernels.kv_cache.quantize` does."""
    if dtype == FP32:
        row_fp32 = fp32_at(row)
        for i in range(head_dim):
            row_fp32[i] = values[i]
    elif dtype == BF16:
        row_bf16 = uint16_at(row)
        for i in range(head_dim):
            row_bf16[i] = fp32_to_bf16(values[i])
    else:
        _quantize(values, row, head_dim)


@inner
def load_row(row: int, head_dim: int, dtype: int, out: int) -> None:
    """Converts a row into `head_dim` fp32 at the address `out`."""
    out_fp32 = fp32_at(out)
    if dtype == FP32:
        row_fp32 = fp32_at(row)
        for i in range(head_dim):
            out_fp32[i] = row_fp32[i]
    elif dtype == BF16:
        row_bf16 = uint16_at(row)
        for i in range(head_dim):
            out_fp32[i] = bf16_to_fp32(row_bf16[i])
    else:
        row_int8, scale = int8_at(row), row_scale(row, head_dim)
        for i in range(head_dim):
            out_fp32[i] = np.float32(row_int8[i]) * scale


@inner
def _quantize(values: Any, row: int, head_dim: int) -> None:
    absmax = np.float32(0)
    for i in range(head_dim):
        absmax = max(absmax, abs(values[i]))
    scale = absmax * _INVERSE_MAX_INT8
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    row_int8 = int8_at(row)
    for i in range(head_dim):
        row_int8[i] = np.int8(np.rint(values[i] * inverse))
    fp32_at(row + head_dim)[0] = scale
