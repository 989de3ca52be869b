"""How prefill lays out queries, keys, values and weights for the `MulAdd` of its products.

    FP32_OPERANDS         fp32; a K step is one element of a head, or one token
    BF16_PAIR_OPERANDS    bf16; a K step is two of them, for machines with bf16 dot products

Both read cache rows of any dtype, see `cache_rows`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moss_tp.kernels.cpu.attention.cache_rows import load_row, store_row
from moss_tp.kernels.cpu.attention.prefill_softmax import make_exp_weights
from moss_tp.kernels.cpu.linear.mul_add import (
    DOT_X16_BF16,
    FMA_X8_FP32,
    FMA_X16_FP32,
    PANEL,
    MulAdd,
)
from moss_tp.native.compiled import inner
from moss_tp.native.dtypes import BF16
from moss_tp.native.memory import fp32_at, uint16_at, uint32_at
from moss_tp.native.vectors import has_cpu_feature


@dataclass(frozen=True)
class Operands:
    """Functions that pack, by address; head_dim must be a multiple of `per_step`."""

    mul_add: MulAdd
    per_step: int  # elements of a head, or tokens, in a K step
    tile_rows: int  # tokens, or elements of a head
    tile_panels: int  # panels of queries at most: as many sums as the registers hold
    pack_query: Any  # (query in fp32, head_dim, panel, column): one column of a panel
    pack_key: Any  # (row, head_dim, dtype, out): one row of x
    pack_values: Any  # (first row, last row, head_dim, dtype, out): one K step of x
    exp_weights: Any  # see `make_exp_weights`


@inner
def _pack_query_fp32(query: int, head_dim: int, panel: int, column: int) -> None:
    values, out = fp32_at(query), fp32_at(panel)
    for d in range(head_dim):
        out[d * PANEL + column] = values[d]


@inner
def _pack_values_fp32(first: int, last: int, head_dim: int, dtype: int, out: int) -> None:
    load_row(first, head_dim, dtype, out)


@inner
def _pack_query_pairs(query: int, head_dim: int, panel: int, column: int) -> None:
    rounded = np.empty(head_dim, np.uint16)
    store_row(fp32_at(query), rounded.ctypes.data, head_dim, BF16)
    pairs = rounded.view(np.uint32)  # not by address, which would not keep the array alive
    out = uint32_at(panel)
    for pair in range(head_dim // 2):
        out[pair * PANEL + column] = pairs[pair]


@inner
def _pack_key_pairs(row: int, head_dim: int, dtype: int, out: int) -> None:
    if dtype == BF16:
        row_bf16, out_bf16 = uint16_at(row), uint16_at(out)
        for d in range(head_dim):
            out_bf16[d] = row_bf16[d]
    else:
        wide = np.empty(head_dim, np.float32)
        load_row(row, head_dim, dtype, wide.ctypes.data)
        store_row(wide, out, head_dim, BF16)


@inner
def _pack_value_pairs(first: int, last: int, head_dim: int, dtype: int, out: int) -> None:
    if dtype == BF16:
        _interleave(uint16_at(first), uint16_at(last), head_dim, out)
    else:
        rounded = np.empty((2, head_dim), np.uint16)
        _pack_key_pairs(first, head_dim, dtype, rounded[0].ctypes.data)
        _pack_key_pairs(last, head_dim, dtype, rounded[1].ctypes.data)
        _interleave(rounded[0], rounded[1], head_dim, out)


@inner
def _interleave(low: Any, high: Any, head_dim: int, out: int) -> None:
    """Two rows of bf16, arrays or pointers, as words of one element of each."""
    words = uint32_at(out)
    for d in range(head_dim):
        words[d] = np.uint32(low[d]) | np.uint32(high[d]) << np.uint32(16)


def _fp32_operands() -> Operands:
    functions = (_pack_query_fp32, load_row, _pack_values_fp32, make_exp_weights(1))
    if has_cpu_feature("avx512f"):
        return Operands(FMA_X16_FP32, 1, 8, 3, *functions)
    return Operands(FMA_X8_FP32, 1, 4, 1, *functions)


FP32_OPERANDS = _fp32_operands()
BF16_PAIR_OPERANDS = Operands(
    mul_add=DOT_X16_BF16,
    per_step=2,
    tile_rows=8,
    tile_panels=3,
    pack_query=_pack_query_pairs,
    pack_key=_pack_key_pairs,
    pack_values=_pack_value_pairs,
    exp_weights=make_exp_weights(2),
)
