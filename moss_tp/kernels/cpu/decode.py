"""Attention of single queries: each reads its own context, straight out of the paged cache.

    out[row, h] = softmax(q[row, h] . K[context, h]) V[context, h]

One task is a PIECE of one row's context for some neighbouring heads: these lie side by side in a
block, and memory gives most when it is read on and on. Pieces begin at fixed places and are
merged, so a row's result does not depend on the rows beside it. Softmax is taken online, block by
block, in fp32.
"""

from typing import Any

import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.elements import element, kind_of, put, row_bytes, scale_of
from moss_tp.kernels.cpu.rows import (
    CHUNK,
    LOWEST,
    highest,
    make_accumulate,
    make_score,
    over_rows,
    place,
    weigh,
)
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.cpu.vectors import INT8, LANES
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.simd import FP32_BYTES, INT_BYTES, exp, floats_at, ints_at

NUM_PARAMS = 17
PIECE = 512
TASKS_PER_THREAD = 4
AHEAD = 2  # heads: memory is asked for these before they are needed


def add_decode(
    program: Program, qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan
) -> None:
    """`qkv (T, 3, H, D)` as `add_store` leaves it, `out (T, H * D)` fp32 or bf16,
    with any row stride."""
    num_rows = len(plan.rows)
    k_cache, v_cache = cache
    _, heads, block_size, _ = k_cache.shape
    head_dim = qkv.shape[-1]
    if not num_rows:
        return
    pieces = -(-plan.max_row_context // PIECE)
    wanted = -(-TASKS_PER_THREAD * torch.get_num_threads() // (num_rows * pieces))
    groups = max(1, min(wanted, heads))
    partials = torch.empty(num_rows * heads * pieces if pieces > 1 else 0, head_dim + 2)
    params: list[int | Tensor] = [
        qkv, out, out.stride(0) * out.itemsize, k_cache, v_cache, heads, head_dim, block_size,
        plan.rows, plan.row_contexts, plan.row_tables, plan.row_tables.shape[1], pieces, partials,
        kind_of(k_cache), kind_of(out), groups,
    ]  # fmt: skip
    program.add(_decode, num_rows * groups * pieces, params)
    if pieces > 1:
        program.add(_merge, num_rows * heads, params)


_score_rows, _add_rows = over_rows(make_score), over_rows(make_accumulate)


@inner
def _score(q: Any, keys: int, count: int, kind: int, scores: Any, ahead: int) -> None:
    """`scores[i]` = q times the `i`th of `count` keys; see `over_rows` for `ahead`."""
    head_dim = len(q)
    size, out = row_bytes(head_dim, kind), scores.ctypes.data
    _score_rows(q.ctypes.data, 0, keys, head_dim, out, FP32_BYTES, count, kind, ahead)
    for i in range(head_dim // CHUNK * CHUNK, head_dim):
        for row in range(count):
            scores[row] += q[i] * element(keys + row * size, i, kind)
    if kind == INT8:
        for row in range(count):
            scores[row] *= scale_of(keys + row * size, head_dim)


@inner
def _add(sums: Any, weights: Any, values: int, count: int, kind: int, ahead: int) -> None:
    """`sums += weights[:count] @ values`; in int8 the weights take up the values' scales."""
    head_dim = len(sums)
    size, factors = row_bytes(head_dim, kind), weights.ctypes.data
    if kind == INT8:
        for row in range(count):
            weights[row] *= scale_of(values + row * size, head_dim)
    _add_rows(factors, FP32_BYTES, values, head_dim, sums.ctypes.data, 0, count, kind, ahead)
    for i in range(head_dim // CHUNK * CHUNK, head_dim):
        for row in range(count):
            sums[i] += weights[row] * element(values + row * size, i, kind)


@inner
def _place(index: int, head_dim: int, kind: int) -> int:
    is_left_over = index >= head_dim // CHUNK * CHUNK
    return index if is_left_over else place(index, kind)


@inner
def _weigh(weights: Any, state: Any, sums: Any) -> None:
    """Scores become weights, relative to the greatest so far, in which `state` counts: that one,
    and the weights' sum. What was summed before shrinks to match."""
    vectors = len(weights) // LANES
    peak = highest(weights.ctypes.data, vectors)
    if peak > state[0]:
        shrink = exp(state[0] - peak)
        state[0] = peak
        state[1] *= shrink
        for i in range(len(sums)):
            sums[i] *= shrink
    state[1] += weigh(weights.ctypes.data, vectors, state[0])


@inner
def _attend(
    q: Any, table: Any, span: tuple[int, int], geometry: tuple[int, ...], sums: Any, states: Any
) -> None:
    """Sums of values over the context `span` for each head of q, not yet divided by their
    weights' sum; see `_weigh` for `states`."""
    k_cache, v_cache, heads, first_head, block_size, kind = geometry
    num_heads, head_dim = q.shape
    size = row_bytes(head_dim, kind)
    head_bytes = block_size * size
    weights = np.empty(-(-block_size // LANES) * LANES, np.float32)
    start, stop = span
    while start < stop:
        at, offset = start // block_size, start % block_size
        count = min(block_size - offset, stop - start)
        own = (table[at] * heads + first_head) * head_bytes
        following = own
        if start + count < stop:
            following = (table[at + 1] * heads + first_head) * head_bytes
        for head in range(num_heads):
            rows = own + head * head_bytes + offset * size
            soon = rows + AHEAD * head_bytes
            if head + AHEAD >= num_heads:
                soon = following + (head + AHEAD - num_heads) % num_heads * head_bytes
            ahead = soon - rows
            _score(q[head], k_cache + rows, count, kind, weights, ahead)
            weights[count:] = LOWEST
            _weigh(weights, states[head], sums[head])
            _add(sums[head], weights, v_cache + rows, count, kind, ahead)
        start += count


@inner
def _finish(sums: Any, factor: Any, p: Any, index: int, head: int) -> None:
    """`sums * factor`, back in the elements' own order, into `out`."""
    head_dim, kind, out_kind = len(sums), p[14], p[15]
    values = np.empty(head_dim, np.float32)
    for i in range(head_dim):
        values[i] = sums[_place(i, head_dim, kind)] * factor
    out = p[1] + ints_at(p[8])[index] * p[2] + head * row_bytes(head_dim, out_kind)
    put(values, out, head_dim, out_kind)


@kernel
def _decode(params: int, task: int) -> None:
    p = carray(ints_at(params), NUM_PARAMS)
    heads, head_dim, block_size, pieces, kind, groups = p[5], p[6], p[7], p[12], p[14], p[16]
    piece, group, index = task % pieces, task // pieces % groups, task // pieces // groups
    row, context = ints_at(p[8])[index], ints_at(p[9])[index]
    first_head, last_head = group * heads // groups, (group + 1) * heads // groups
    num_heads = last_head - first_head
    q = np.empty((num_heads, head_dim), np.float32)
    for head in range(num_heads):
        own = floats_at(p[0] + (row * 3 * heads + first_head + head) * head_dim * FP32_BYTES)
        for i in range(head_dim):
            q[head, _place(i, head_dim, kind)] = own[i]
    sums = np.zeros((num_heads, head_dim), np.float32)
    states = np.zeros((num_heads, 2), np.float32)
    states[:, 0] = LOWEST
    table = ints_at(p[10] + index * p[11] * INT_BYTES)
    geometry = (p[3], p[4], heads, first_head, block_size, kind)
    _attend(q, table, (piece * PIECE, min(context, (piece + 1) * PIECE)), geometry, sums, states)
    for head in range(num_heads):
        if pieces == 1:
            _finish(sums[head], np.float32(1) / states[head, 1], p, index, first_head + head)
        else:
            own = ((index * heads + first_head + head) * pieces + piece) * (head_dim + 2)
            partial = floats_at(p[13] + own * FP32_BYTES)
            for i in range(head_dim):
                partial[i] = sums[head, i]
            partial[head_dim], partial[head_dim + 1] = states[head, 0], states[head, 1]


@kernel
def _merge(params: int, task: int) -> None:
    """The pieces of one row's head into one: each weighs as much as its scores."""
    p = carray(ints_at(params), NUM_PARAMS)
    heads, head_dim, pieces = p[5], p[6], p[12]
    index, head = task // heads, task % heads
    size = head_dim + 2
    partials = floats_at(p[13] + task * pieces * size * FP32_BYTES)
    peak = LOWEST
    for piece in range(pieces):
        peak = max(peak, partials[piece * size + head_dim])
    sums = np.zeros(head_dim, np.float32)
    total = np.float32(0)
    for piece in range(pieces):
        weight = exp(partials[piece * size + head_dim] - peak)
        total += weight * partials[piece * size + head_dim + 1]
        for i in range(head_dim):
            sums[i] += weight * partials[piece * size + i]
    _finish(sums, np.float32(1) / total, p, index, head)
