"""What the products of attention multiply: fp32 numbers, or pairs of bf16.

    FMA    fp32; a K step is one element of a head, or one token
    DOT    bf16; a K step is two of them, for machines with bf16 dot products

q and the softmax's weights are rounded to that, and so is what the cache holds in another dtype.
The integers of an INT8 cache are exact in both; scores and weights are multiplied by its scales.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moss_tp.kernels.cpu.attention.cache_rows import store_row
from moss_tp.kernels.cpu.attention.products import Shape, shapes_of
from moss_tp.kernels.cpu.microkernel.mul_add import (
    DOT_X16_BF16,
    FMA_X8_FP32,
    FMA_X16_FP32,
    VectorMulAdd,
)
from moss_tp.native.bf16 import bf16_to_fp32, fp16_to_fp32, fp32_to_bits
from moss_tp.native.compiled import inner
from moss_tp.native.dtypes import BF16, FP16, FP32, INT8
from moss_tp.native.memory import fp32_at, int8_at, uint16_at
from moss_tp.native.vectors import has_cpu_feature


@dataclass(frozen=True)
class Operands:
    """The panels are powers of two, by the number of queries: as many sums as registers hold."""

    mul_add: VectorMulAdd
    dtype: int  # of the elements
    score_panels: tuple[int, ...]
    value_panels: tuple[int, ...]
    widened: tuple[int, ...]  # other dtypes that a single query reads without packing them
    convert: Any  # (source, dtype, count, out): elements of the cache, by address

    def shapes(self, panels: tuple[int, ...]) -> list[Shape]:
        single = panels[:2]
        return shapes_of(panels, self.dtype) + [
            shape for dtype in self.widened for shape in shapes_of(single, dtype)
        ]

    @property
    def max_queries(self) -> int:
        return len(self.score_panels) - 1

    @property
    def per_step(self) -> int:
        """Elements of a head, or tokens, in a K step; head_dim must be a multiple of it."""
        return self.mul_add.x_per_step


@inner
def _to_fp32(source: int, dtype: int, count: int, out: int) -> None:
    wide = fp32_at(out)
    if dtype == FP32:
        for i in range(count):
            wide[i] = fp32_at(source)[i]
    elif dtype == BF16:
        for i in range(count):
            wide[i] = bf16_to_fp32(uint16_at(source)[i])
    elif dtype == FP16:
        for i in range(count):
            wide[i] = fp16_to_fp32(uint16_at(source)[i])
    else:
        for i in range(count):
            wide[i] = np.float32(int8_at(source)[i])


@inner
def _to_bf16(source: int, dtype: int, count: int, out: int) -> None:
    if dtype == BF16:
        for i in range(count):
            uint16_at(out)[i] = uint16_at(source)[i]
    elif dtype == INT8:
        for i in range(count):
            bits = fp32_to_bits(np.float32(int8_at(source)[i]))
            uint16_at(out)[i] = np.uint16(bits >> np.uint32(16))
    else:
        wide = np.empty(count, np.float32)
        _to_fp32(source, dtype, count, wide.ctypes.data)
        store_row(wide, out, count, BF16)


_NARROW = (BF16, FP16, INT8)
_X16_SCORES, _X16_VALUES, _X8 = (0, 4, 4, 0, 4, 0, 4), (0, 16, 8, 0, 4, 0, 4), (0, 4, 2, 0, 1)

if has_cpu_feature("avx512f"):
    FMA = Operands(FMA_X16_FP32, FP32, _X16_SCORES, _X16_VALUES, _NARROW, _to_fp32)
else:
    FMA = Operands(FMA_X8_FP32, FP32, _X8, _X8, _NARROW, _to_fp32)
DOT = Operands(DOT_X16_BF16, BF16, _X16_SCORES, _X16_VALUES, (INT8,), _to_bf16)


def best_operands(has_bf16: bool, head_dim: int) -> Operands:
    """`has_bf16`: the cache or attention's output is bf16."""
    has_dot = has_cpu_feature("avx512bf16") and head_dim % DOT.per_step == 0
    return DOT if has_bf16 and has_dot else FMA
