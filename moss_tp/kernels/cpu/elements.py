"""What a row of the KV cache is made of: fp32, bf16, or int8 with a scale of its own.

    fp32, bf16   head_dim elements
    int8         head_dim elements, then their scale in fp32: element = int8 * scale

Kernels are told which by an int, see `vectors`.
"""

from typing import Any

import numpy as np
import torch

from moss_tp.kernels.cpu.vectors import BF16, FP32, INT8
from moss_tp.native.compiled import inner
from moss_tp.native.simd import (
    BF16_BYTES,
    FP32_BYTES,
    chars_at,
    floats_at,
    halves_at,
    round_to_bf16,
    widen,
)

_KINDS = {torch.float32: FP32, torch.bfloat16: BF16, torch.int8: INT8}
_PER_STEP = np.float32(1 / 127)


def kind_of(cache: torch.Tensor) -> int:
    """KeyError for a cache that kernels cannot read."""
    return _KINDS[cache.dtype]


@inner
def row_bytes(head_dim: int, kind: int) -> int:
    if kind == FP32:
        return head_dim * FP32_BYTES
    if kind == BF16:
        return head_dim * BF16_BYTES
    return head_dim + FP32_BYTES


@inner
def scale_of(row: int, head_dim: int) -> Any:
    """The scale at the end of a row in int8."""
    return floats_at(row + head_dim)[0]


@inner
def element(row: int, index: int, kind: int) -> Any:
    """In int8 without its scale."""
    if kind == FP32:
        return floats_at(row)[index]
    if kind == BF16:
        return widen(halves_at(row)[index])
    return np.float32(chars_at(row)[index])


@inner
def put(values: Any, row: int, head_dim: int, kind: int) -> None:
    """`head_dim` fp32 become a row, see `moss_tp.kernels.reference.attention.quantize`."""
    if kind == FP32:
        floats = floats_at(row)
        for i in range(head_dim):
            floats[i] = values[i]
    elif kind == BF16:
        halves = halves_at(row)
        for i in range(head_dim):
            halves[i] = round_to_bf16(values[i])
    else:
        _quantize(values, row, head_dim)


@inner
def widen_row(row: int, head_dim: int, kind: int, to: int) -> None:
    """The inverse of `put`: a row becomes `head_dim` fp32 at the address `to`."""
    out = floats_at(to)
    if kind == FP32:
        floats = floats_at(row)
        for i in range(head_dim):
            out[i] = floats[i]
    elif kind == BF16:
        halves = halves_at(row)
        for i in range(head_dim):
            out[i] = widen(halves[i])
    else:
        chars, scale = chars_at(row), scale_of(row, head_dim)
        for i in range(head_dim):
            out[i] = np.float32(chars[i]) * scale


@inner
def _quantize(values: Any, row: int, head_dim: int) -> None:
    largest = np.float32(0)
    for i in range(head_dim):
        largest = max(largest, abs(values[i]))
    scale = largest * _PER_STEP
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    chars = chars_at(row)
    for i in range(head_dim):
        chars[i] = np.int8(np.rint(values[i] * inverse))
    floats_at(row + head_dim)[0] = scale
