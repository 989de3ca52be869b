"""What prefill multiplies, as its product takes it: queries, keys, values and weights.

    SINGLES    fp32, one element of a head or one token a step
    PAIRS      bf16, two a step: for a processor with products of bf16 pairs

Both take rows of the cache of any kind, see `elements`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moss_tp.kernels.cpu.columns import make_weigh
from moss_tp.kernels.cpu.elements import put, widen_row
from moss_tp.kernels.cpu.products import (
    DOT_BF16,
    LONG_FP32,
    PANEL,
    WIDE_FP32,
    Product,
)
from moss_tp.kernels.cpu.vectors import BF16, has_instructions
from moss_tp.native.compiled import inner
from moss_tp.native.simd import (
    floats_at,
    halves_at,
    words_at,
)


@dataclass(frozen=True)
class Operands:
    """Addresses of words, 4 bytes a step; `head_dim` is a multiple of `per_step`."""

    product: Product
    per_step: int  # elements of a head, or tokens
    rows: int  # of a tile: tokens, or elements of a head,
    panels: int  # and of queries, at most: as many sums as the registers hold
    put_query: Any  # (query in fp32, head_dim, panel, column): one of a panel's columns
    put_key: Any  # (row, head_dim, kind, to): a row of x
    put_values: Any  # (first row, last row, head_dim, kind, to): per_step of them, a step's x
    weigh: Any  # see `make_weigh`


@inner
def _put_query_singles(query: int, head_dim: int, panel: int, column: int) -> None:
    values, out = floats_at(query), floats_at(panel)
    for d in range(head_dim):
        out[d * PANEL + column] = values[d]


@inner
def _put_values_singles(first: int, last: int, head_dim: int, kind: int, to: int) -> None:
    widen_row(first, head_dim, kind, to)


@inner
def _put_query_pairs(query: int, head_dim: int, panel: int, column: int) -> None:
    rounded = np.empty(head_dim, np.uint16)
    put(floats_at(query), rounded.ctypes.data, head_dim, BF16)
    pairs = rounded.view(np.uint32)  # not by address: an array lives as long as it is used
    out = words_at(panel)
    for pair in range(head_dim // 2):
        out[pair * PANEL + column] = pairs[pair]


@inner
def _put_key_pairs(row: int, head_dim: int, kind: int, to: int) -> None:
    if kind == BF16:
        halves, out = halves_at(row), halves_at(to)
        for d in range(head_dim):
            out[d] = halves[d]
    else:
        wide = np.empty(head_dim, np.float32)
        widen_row(row, head_dim, kind, wide.ctypes.data)
        put(wide, to, head_dim, BF16)


@inner
def _put_values_pairs(first: int, last: int, head_dim: int, kind: int, to: int) -> None:
    if kind == BF16:
        _interleave(halves_at(first), halves_at(last), head_dim, to)
    else:
        rounded = np.empty((2, head_dim), np.uint16)
        _put_key_pairs(first, head_dim, kind, rounded[0].ctypes.data)
        _put_key_pairs(last, head_dim, kind, rounded[1].ctypes.data)
        _interleave(rounded[0], rounded[1], head_dim, to)


@inner
def _interleave(low: Any, high: Any, head_dim: int, to: int) -> None:
    """Two rows of bf16, arrays or pointers, as words."""
    out = words_at(to)
    for d in range(head_dim):
        out[d] = np.uint32(low[d]) | np.uint32(high[d]) << np.uint32(16)


def _make_singles() -> Operands:
    dealt = (_put_query_singles, widen_row, _put_values_singles, make_weigh(1))
    if has_instructions("avx512f"):
        return Operands(LONG_FP32, 1, 8, 3, *dealt)
    return Operands(WIDE_FP32, 1, 4, 1, *dealt)


SINGLES = _make_singles()
PAIRS = Operands(
    DOT_BF16, 2, 8, 3, _put_query_pairs, _put_key_pairs, _put_values_pairs, make_weigh(2)
)
