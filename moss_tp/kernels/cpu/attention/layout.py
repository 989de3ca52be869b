"""How the CPU's KV cache holds a head's part of a block: a cell of K and one of V.

    K    (panels, steps, tokens of a panel, per_step)    a step is `per_step` neighbours of a row
    V    (groups, head_dim, tokens of a group)

per_step, 1 or 2, is that of the `Operands`. A panel has PANEL tokens and a group `per_step` of
them where that divides the block size; else all of a block and one. So cells of K are panels of a
matrix product whose columns are tokens, and cells of V are K steps of one whose columns are a
head's elements. INT8 cells end with a scale in fp32 for each token: element = int8 * scale.
"""

from typing import NamedTuple

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes
from moss_tp.kernels.cpu.microkernel.mul_add import PANEL
from moss_tp.native.compiled import inner
from moss_tp.native.dtypes import INT8
from moss_tp.native.llvm import FP32_BYTES


class Cells(NamedTuple):
    """One head's cells: K and V caches `(num_blocks, num_heads)` cells."""

    k_cache: int  # address
    v_cache: int
    num_heads: int
    head: int
    head_dim: int
    block_size: int
    dtype: int
    per_step: int


@inner
def panel_tokens(block_size: int) -> int:
    return PANEL if block_size % PANEL == 0 else block_size


@inner
def group_tokens(block_size: int, per_step: int) -> int:
    return per_step if block_size % per_step == 0 else 1


@inner
def find_cell(cells: Cells, block: int) -> int:
    """The offset of a block's cell in either cache, in bytes."""
    size: int = row_bytes(cells.block_size * cells.head_dim, cells.dtype)
    if cells.dtype == INT8:
        size += cells.block_size * FP32_BYTES
    return (block * cells.num_heads + cells.head) * size


@inner
def find_scales(cells: Cells, cell: int) -> int:
    """The offset of the scales of an INT8 cell."""
    return cell + cells.block_size * cells.head_dim


@inner
def find_key(cells: Cells, offset: int, step: int) -> int:
    """Where a step of a token's key is in its cell, in elements."""
    width: int = panel_tokens(cells.block_size)
    steps = cells.head_dim // cells.per_step
    return ((offset // width * steps + step) * width + offset % width) * cells.per_step


@inner
def find_value(cells: Cells, offset: int) -> int:
    """Where the first element of a token's value is in its cell, in elements; they are
    `group_tokens` apart."""
    group: int = group_tokens(cells.block_size, cells.per_step)
    return offset // group * group * cells.head_dim + offset % group
