"""CHUNK tokens of a head's context, as the products read them.

Where the cells of the cache are laid out so, products read the cache itself; else tokens are packed
into scratch memory first. A table has the addresses of PANEL tokens each: PANELS of keys, then
PANELS + 1 of values, of which the last is never read from.
"""

from typing import Any

import numpy as np

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes
from moss_tp.kernels.cpu.attention.layout import (
    Cells,
    find_cell,
    find_key,
    find_scales,
    find_value,
    group_tokens,
    panel_tokens,
)
from moss_tp.kernels.cpu.attention.operands import Operands
from moss_tp.kernels.cpu.attention.products import PANELS
from moss_tp.kernels.cpu.attention.scratch import Scratch, width_of
from moss_tp.kernels.cpu.microkernel.mul_add import PANEL, X_STEP_BYTES
from moss_tp.native.compiled import exact_inlined
from moss_tp.native.llvm import FP32_BYTES
from moss_tp.native.memory import fp32_at, int64_at, prefetch, uint16_at
from moss_tp.native.vectors import CACHE_LINE


@exact_inlined
def is_whole(cells: Cells) -> bool:
    """Whether cells consist of whole panels, of tokens in K and of a head's elements in V."""
    return cells.block_size % PANEL == 0 and cells.head_dim % PANEL == 0


@exact_inlined
def locate(cells: Cells, block_table: Any, start: int, stop: int, table: int) -> None:
    """Fills a table with the places of the tokens from `start` on in the cache. Beyond `stop` it
    repeats the last one."""
    addresses, token_bytes = int64_at(table), row_bytes(cells.head_dim, cells.dtype)
    panels = -(-(stop - start) // PANEL)
    for i in range(PANELS + 1):
        position = start + min(i, panels - 1) * PANEL
        number = position // cells.block_size
        offset = position - number * cells.block_size
        place = find_cell(cells, block_table[number]) + offset * token_bytes
        if i < PANELS:
            addresses[i] = cells.k_cache + place
        addresses[PANELS + i] = cells.v_cache + place


@exact_inlined
def locate_packed(scratch: Scratch, head_dim: int, per_step: int, table: int) -> None:
    """Fills a table with the places of packed tokens."""
    addresses = int64_at(table)
    key_bytes = PANEL * head_dim // per_step * X_STEP_BYTES
    value_bytes = PANEL // per_step * width_of(head_dim) * X_STEP_BYTES
    for i in range(PANELS + 1):
        if i < PANELS:
            addresses[i] = scratch.keys + i * key_bytes
        addresses[PANELS + i] = scratch.values + i * value_bytes


@exact_inlined
def prefetch_tokens(cells: Cells, block_table: Any, start: int, stop: int) -> None:
    """Prefetches what the cache holds of the tokens from `start` up to `stop`, if there are any."""
    token_bytes = row_bytes(cells.head_dim, cells.dtype)
    while start < stop:
        number = start // cells.block_size
        offset = start - number * cells.block_size
        run = min(cells.block_size - offset, stop - start)
        cell = find_cell(cells, block_table[number])
        first = cell + offset * token_bytes
        for line in range(first, first + run * token_bytes, CACHE_LINE):
            prefetch(cells.k_cache + line)
            prefetch(cells.v_cache + line)
        start += run


@exact_inlined
def load_scales(scratch: Scratch, cells: Cells, block_table: Any, start: int, count: int) -> None:
    """The scales of INT8 tokens."""
    for i in range(count):
        number = (start + i) // cells.block_size
        offset = start + i - number * cells.block_size
        place = find_scales(cells, find_cell(cells, block_table[number])) + offset * FP32_BYTES
        fp32_at(scratch.key_scales)[i] = fp32_at(cells.k_cache + place)[0]
        fp32_at(scratch.value_scales)[i] = fp32_at(cells.v_cache + place)[0]


def make_pack(operands: Operands) -> Any:
    """`pack(scratch, cells, block_table, start, count, following, ahead, seen)`: packs the `count`
    tokens from `start` on, and prefetches CHUNK tokens of `following` from `ahead` on, up to
    `seen`."""
    pack_keys, pack_values = _make_pack_keys(operands), _make_pack_values(operands)

    @exact_inlined
    def pack(
        scratch: Scratch,
        cells: Cells,
        block_table: Any,
        start: int,
        count: int,
        following: Cells,
        ahead: int,
        seen: int,
    ) -> None:
        i = 0
        while i < count:
            number, offset = (start + i) // cells.block_size, (start + i) % cells.block_size
            run = min(cells.block_size - offset, count - i)
            prefetch_tokens(following, block_table, ahead + i, min(ahead + i + run, seen))
            cell = find_cell(cells, block_table[number])
            pack_keys(scratch.keys, cells, cell, offset, run, i)
            pack_values(scratch.values, scratch.row, cells, cell, offset, run, i)
            i += run

    return pack


def _make_pack_keys(operands: Operands) -> Any:
    """`pack_keys(keys, cells, cell, offset, run, i)`: `run` tokens of a cell, from `offset` on, as
    the i-th of the chunk and those after it."""
    per_step, convert = operands.per_step, operands.convert

    @exact_inlined
    def pack_keys(keys: int, cells: Cells, cell: int, offset: int, run: int, i: int) -> None:
        steps, size = cells.head_dim // per_step, row_bytes(1, cells.dtype)
        width = panel_tokens(cells.block_size)
        done = 0
        while done < run:
            token, own = offset + done, i + done
            count = min(run - done, width - token % width, PANEL - own % PANEL)
            is_panel = count == width == PANEL  # then its steps are contiguous
            for step in range(1 if is_panel else steps):
                source = cells.k_cache + cell + find_key(cells, token, step) * size
                word = (own // PANEL * steps + step) * PANEL + own % PANEL
                length = count * per_step * (steps if is_panel else 1)
                convert(source, cells.dtype, length, keys + word * X_STEP_BYTES)
            done += count

    return pack_keys


def _make_pack_values(operands: Operands) -> Any:
    """`pack_values(values, row, cells, cell, offset, run, i)`, like `pack_keys`; `row` is scratch
    memory for a token."""
    per_step, convert = operands.per_step, operands.convert

    @exact_inlined
    def pack_values(
        values: int, row: int, cells: Cells, cell: int, offset: int, run: int, i: int
    ) -> None:
        head_dim, size = cells.head_dim, row_bytes(1, cells.dtype)
        step_bytes = width_of(head_dim) * X_STEP_BYTES
        group = group_tokens(cells.block_size, per_step)
        for done in range(0, run, group):
            source = cells.v_cache + cell + find_value(cells, offset + done) * size
            out = values + (i + done) // per_step * step_bytes
            if group == per_step:
                convert(source, cells.dtype, head_dim * per_step, out)
            else:
                convert(source, cells.dtype, head_dim, row)
                _interleave(row, out, head_dim, (i + done) % per_step)

    return pack_values


@exact_inlined
def _interleave(row: int, out: int, head_dim: int, part: int) -> None:
    """Puts bf16 into the halves `part` of words. The other half of a first one becomes 0: a token
    without a partner has a weight of 0 for it."""
    for d in range(head_dim):
        uint16_at(out)[2 * d + part] = uint16_at(row)[d]
        if part == 0:
            uint16_at(out)[2 * d + 1] = np.uint16(0)
