"""What prefill multiplies, as its product takes it: queries, keys, values and weights.

    SINGLES    fp32, one element of a head or one token a step
    PAIRS      bf16, two a step: for a processor with products of bf16 pairs

Both take rows of the cache of any kind, see `elements`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moss_tp.kernels.cpu.columns import make_weigh
from moss_tp.kernels.cpu.elements import scale_of
from moss_tp.kernels.cpu.products import (
    DOT_BF16,
    LONG_FP32,
    PANEL,
    WIDE_FP32,
    Product,
)
from moss_tp.kernels.cpu.vectors import BF16, FP32, has_instructions
from moss_tp.native.compiled import inner
from moss_tp.native.simd import (
    chars_at,
    floats_at,
    halves_at,
    round_to_bf16,
    widen,
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
def _put_key_singles(row: int, head_dim: int, kind: int, to: int) -> None:
    out = floats_at(to)
    if kind == FP32:
        floats = floats_at(row)
        for d in range(head_dim):
            out[d] = floats[d]
    elif kind == BF16:
        halves = halves_at(row)
        for d in range(head_dim):
            out[d] = widen(halves[d])
    else:
        chars, scale = chars_at(row), scale_of(row, head_dim)
        for d in range(head_dim):
            out[d] = np.float32(chars[d]) * scale


@inner
def _put_values_singles(first: int, last: int, head_dim: int, kind: int, to: int) -> None:
    _put_key_singles(first, head_dim, kind, to)


@inner
def _put_query_pairs(query: int, head_dim: int, panel: int, column: int) -> None:
    values, out = floats_at(query), words_at(panel)
    rounded = np.empty(head_dim, np.uint16)
    for d in range(head_dim):
        rounded[d] = round_to_bf16(values[d])
    pairs = rounded.view(np.uint32)  # not by address: an array lives as long as it is used
    for pair in range(head_dim // 2):
        out[pair * PANEL + column] = pairs[pair]


@inner
def _put_key_pairs(row: int, head_dim: int, kind: int, to: int) -> None:
    out = halves_at(to)
    if kind == BF16:
        halves = halves_at(row)
        for d in range(head_dim):
            out[d] = halves[d]
    else:
        wide = np.empty(head_dim, np.float32)
        _put_key_singles(row, head_dim, kind, wide.ctypes.data)
        for d in range(head_dim):
            out[d] = round_to_bf16(wide[d])


@inner
def _put_values_pairs(first: int, last: int, head_dim: int, kind: int, to: int) -> None:
    out = words_at(to)
    if kind == BF16:
        low, high = halves_at(first), halves_at(last)
        for d in range(head_dim):
            out[d] = np.uint32(low[d]) | np.uint32(high[d]) << np.uint32(16)
    else:
        rounded = np.empty((2, head_dim), np.uint16)
        _put_key_pairs(first, head_dim, kind, rounded[0].ctypes.data)
        _put_key_pairs(last, head_dim, kind, rounded[1].ctypes.data)
        for d in range(head_dim):
            out[d] = np.uint32(rounded[0, d]) | np.uint32(rounded[1, d]) << np.uint32(16)


def _make_singles() -> Operands:
    dealt = (_put_query_singles, _put_key_singles, _put_values_singles, make_weigh(1))
    if has_instructions("avx512f"):
        return Operands(LONG_FP32, 1, 8, 3, *dealt)
    return Operands(WIDE_FP32, 1, 4, 1, *dealt)


SINGLES = _make_singles()
PAIRS = Operands(
    DOT_BF16, 2, 8, 3, _put_query_pairs, _put_key_pairs, _put_values_pairs, make_weigh(2)
)
