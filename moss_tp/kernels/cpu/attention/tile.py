"""A tile's queries of one head over a span of its context, CHUNK tokens at a time."""

from typing import Any

from moss_tp.kernels.cpu.attention.cache_rows import row_bytes
from moss_tp.kernels.cpu.attention.context import (
    is_whole,
    load_scales,
    locate,
    locate_packed,
    make_pack,
)
from moss_tp.kernels.cpu.attention.layout import Cells
from moss_tp.kernels.cpu.attention.operands import Operands
from moss_tp.kernels.cpu.attention.plan import Tile
from moss_tp.kernels.cpu.attention.products import (
    CHUNK,
    PANELS,
    PREFETCH_QUERIES,
    make_accumulate,
    make_score,
    shape_key,
)
from moss_tp.kernels.cpu.attention.scratch import TABLE_BYTES, Scratch, width_of
from moss_tp.kernels.cpu.attention.softmax import (
    LOWEST,
    make_exp_weights,
    make_max_score,
    rescale_sums,
)
from moss_tp.kernels.cpu.microkernel.mul_add import PANEL, X_STEP_BYTES
from moss_tp.native.compiled import exact_inlined
from moss_tp.native.dtypes import INT8
from moss_tp.native.exp import exp
from moss_tp.native.llvm import FP32_BYTES, INT_BYTES
from moss_tp.native.memory import fp32_at, int64_at, prefetch, uint32_at
from moss_tp.native.vectors import CACHE_LINE, LANES


@exact_inlined
def _queries_at_once(left: int, most: int) -> int:
    if left <= 2:
        return left
    return 4 if left <= 4 else most


@exact_inlined
def padded_queries(count: int, most: int) -> int:
    return _queries_at_once(count, most) if count <= most else -(-count // most) * most


@exact_inlined
def clear_padding(
    scratch: Scratch, tile: Tile, padded: int, row_words: int, weight_words: int
) -> None:
    """So that queries which only fill up a shape compute with zeros."""
    for i in range(tile.num_rows * row_words, padded * row_words):
        uint32_at(scratch.q)[i] = 0
    for i in range(tile.num_rows * weight_words, padded * weight_words):
        uint32_at(scratch.weights)[i] = 0


@exact_inlined
def clear_sums(scratch: Scratch, queries: int, head_dim: int) -> None:
    for i in range(queries * width_of(head_dim)):
        fp32_at(scratch.sums)[i] = 0
    for i in range(queries):
        fp32_at(scratch.maxima)[i] = LOWEST
    for i in range(queries * LANES):
        fp32_at(scratch.totals)[i] = 0


@exact_inlined
def _prefetch_part(ahead: int, size: int, part: int, parts: int) -> None:
    """A part of the next chunk, whose PANEL tokens' keys and values have `size` bytes each."""
    first, stop = part * size // parts // CACHE_LINE, (part + 1) * size // parts // CACHE_LINE
    for i in range(2 * PANELS):
        address = int64_at(ahead)[i]
        for line in range(first, stop):
            prefetch(address + line * CACHE_LINE)


def make_score_chunk(operands: Operands) -> Any:
    """`score_chunk(scratch, first, stop, panels, head_dim, dtype, table, ahead)` for the queries
    from `first` up to `stop`; `dtype` is that of the keys."""
    most, most_panels = operands.max_queries, operands.score_panels
    per_step = operands.per_step
    score = make_score(operands.mul_add, operands.shapes(most_panels))

    @exact_inlined
    def score_chunk(
        scratch: Scratch,
        first: int,
        stop: int,
        panels: int,
        head_dim: int,
        dtype: int,
        table: int,
        ahead: int,
    ) -> None:
        steps = head_dim // per_step
        query_bytes = steps * X_STEP_BYTES
        start, size = first, PANEL * query_bytes
        while first < stop:
            count = _queries_at_once(stop - first, most)
            if count > PREFETCH_QUERIES:
                _prefetch_part(ahead, size, (first - start) // most, -(-(stop - start) // most))
            panel = 0
            while panel < panels:
                width = most_panels[count]
                while width > panels - panel:
                    width //= 2
                score(
                    shape_key(count, width, dtype),
                    scratch.q + first * query_bytes,
                    query_bytes,
                    table + panel * INT_BYTES,
                    ahead + panel * INT_BYTES,
                    steps,
                    scratch.scores + (first * CHUNK + panel * PANEL) * FP32_BYTES,
                )
                panel += width
            first += count

    return score_chunk


def make_accumulate_chunk(operands: Operands) -> Any:
    """`accumulate_chunk(scratch, first, stop, tokens, head_dim, dtype, table, ahead)`."""
    most, most_panels = operands.max_queries, operands.value_panels
    per_step = operands.per_step
    accumulate = make_accumulate(operands.mul_add, operands.shapes(most_panels))

    @exact_inlined
    def accumulate_chunk(
        scratch: Scratch,
        first: int,
        stop: int,
        tokens: int,
        head_dim: int,
        dtype: int,
        table: int,
        ahead: int,
    ) -> None:
        width, element_bytes = width_of(head_dim), row_bytes(1, dtype)
        panels, steps = width // PANEL, -(-tokens // per_step)
        stride = width * FP32_BYTES
        while first < stop:
            count = _queries_at_once(stop - first, most)
            panel = 0
            while panel < panels:
                own = most_panels[count]
                while own > panels - panel:
                    own //= 2
                accumulate(
                    shape_key(count, own, dtype),
                    scratch.weights + first * (CHUNK // per_step) * X_STEP_BYTES,
                    table + PANELS * INT_BYTES,
                    ahead + PANELS * INT_BYTES,
                    panel * PANEL * per_step * element_bytes,
                    width * per_step * element_bytes,
                    steps,
                    scratch.sums + first * stride + panel * PANEL * FP32_BYTES,
                    stride,
                )
                panel += own
            first += count

    return accumulate_chunk


def make_softmax_chunk(operands: Operands, has_scales: bool) -> Any:
    """`softmax_chunk(scratch, first, stop, visible, head_dim)`: the query `first` sees `visible`
    tokens, and each one after it one more."""
    per_step, steps = operands.per_step, CHUNK // operands.per_step
    max_whole, max_masked = (make_max_score(has_scales, masked) for masked in (False, True))
    exp_whole, exp_masked = (
        make_exp_weights(per_step, has_scales, masked) for masked in (False, True)
    )

    @exact_inlined
    def softmax_chunk(scratch: Scratch, first: int, stop: int, visible: int, head_dim: int) -> None:
        vectors, maxima = width_of(head_dim) // LANES, fp32_at(scratch.maxima)
        keys, values = scratch.key_scales, scratch.value_scales
        for query in range(first, stop):
            seen = visible + query - first
            scores = scratch.scores + query * CHUNK * FP32_BYTES
            totals = scratch.totals + query * LANES * FP32_BYTES
            weights = scratch.weights + query * steps * X_STEP_BYTES
            if seen < CHUNK:
                greatest = max_masked(scores, seen, keys)
            else:
                greatest = max_whole(scores, seen, keys)
            before = maxima[query]
            if greatest > before:
                maxima[query] = greatest
                factor = exp(before - greatest)
                rescale_sums(totals, 1, factor)
                rescale_sums(scratch.sums + query * vectors * LANES * FP32_BYTES, vectors, factor)
            if seen < CHUNK:
                exp_masked(scores, seen, keys, values, maxima[query], totals, weights)
            else:
                exp_whole(scores, seen, keys, values, maxima[query], totals, weights)

    return softmax_chunk


def make_attend_span(operands: Operands) -> Any:
    """`attend_span(scratch, cells, block_table, tile, span, following)`: the tile's queries attend
    to the tokens `span`, which begins at a multiple of CHUNK, as far as they see them. `following`
    is what is read next, to be prefetched."""
    most, per_step, dtype = operands.max_queries, operands.per_step, operands.dtype
    widened = operands.widened
    score_chunk, accumulate_chunk = make_score_chunk(operands), make_accumulate_chunk(operands)
    softmax_plain, softmax_scaled = (make_softmax_chunk(operands, has) for has in (False, True))
    pack = make_pack(operands)

    @exact_inlined
    def attend_span(
        scratch: Scratch,
        cells: Cells,
        block_table: Any,
        tile: Tile,
        span: tuple[int, int],
        following: tuple[Cells, int],
    ) -> None:
        (start, stop), head_dim = span, cells.head_dim
        seen = tile.context + tile.num_rows - 1
        is_single = tile.num_rows == 1 and cells.dtype in widened
        reads_cache = is_whole(cells) and (cells.dtype == dtype or is_single)
        read_dtype = cells.dtype if reads_cache else dtype
        table, ahead = scratch.tables, scratch.tables + TABLE_BYTES
        if reads_cache:
            locate(cells, block_table, start, stop, table)
        else:
            locate_packed(scratch, head_dim, per_step, table)
            locate_packed(scratch, head_dim, per_step, ahead)
        while start < stop:
            tokens = min(CHUNK, stop - start)
            then, position = (cells, start + CHUNK) if start + CHUNK < stop else following
            if reads_cache:
                locate(then, block_table, position, seen, ahead)
            else:
                pack(scratch, cells, block_table, start, tokens, then, position, seen)
            # Queries before it see nothing of this chunk. (A shape's queries stay together.)
            first, rows = max(0, start - tile.context + 1) // most * most, tile.num_rows
            panels = -(-tokens // PANEL)
            score_chunk(scratch, first, rows, panels, head_dim, read_dtype, table, ahead)
            visible = tile.context + first - start
            if cells.dtype == INT8:
                load_scales(scratch, cells, block_table, start, tokens)
                softmax_scaled(scratch, first, rows, visible, head_dim)
            else:
                softmax_plain(scratch, first, rows, visible, head_dim)
            accumulate_chunk(
                scratch, first, tile.num_rows, tokens, head_dim, read_dtype, table, ahead
            )
            table, ahead = ahead, table
            start += CHUNK

    return attend_span
