"""Attention of single queries: each reads its own context, straight out of the paged cache.

    out[row, h] = softmax(q[row, h] . K[context, h]) V[context, h]

One task is one head of one row, or a piece of its context where there are too few of those for
the threads; the pieces are then merged. Softmax is taken online, tile by tile, in fp32.
"""

from typing import Any

import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.elements import element, kind_of, row_bytes, scale_of
from moss_tp.kernels.cpu.rows import LOWEST, make_accumulate, make_score, over_rows, place
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.cpu.vectors import CHUNK, INT8, LINE
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.simd import FP32_BYTES, INT_BYTES, exp, floats_at, ints_at, prefetch

NUM_PARAMS = 15
TILE = 128
MIN_PIECE = 2 * TILE
TASKS_PER_THREAD = 2


def add_decode(
    program: Program, qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan
) -> None:
    """`qkv (T, 3, H, D)` as `add_store` leaves it, `out (T, H * D)` with any row stride."""
    num_rows = len(plan.rows)
    k_cache, v_cache = cache
    _, heads, block_size, _ = k_cache.shape
    head_dim = qkv.shape[-1]
    num_heads = num_rows * heads
    if not num_rows:
        return
    wanted = -(-TASKS_PER_THREAD * torch.get_num_threads() // num_heads)
    pieces = max(1, min(wanted, plan.max_row_context // MIN_PIECE))
    partials = torch.empty(num_heads * pieces if pieces > 1 else 0, head_dim + 2)
    params: list[int | Tensor] = [
        qkv, out, out.stride(0), k_cache, v_cache, heads, head_dim, block_size, plan.rows,
        plan.row_contexts, plan.row_tables, plan.row_tables.shape[1], pieces, partials,
        kind_of(k_cache),
    ]  # fmt: skip
    program.add(_decode, num_heads * pieces, params)
    if pieces > 1:
        program.add(_merge, num_heads, params)


_score_rows, _add_rows = over_rows(make_score), over_rows(make_accumulate)


@inner
def _score(q: Any, keys: int, count: int, kind: int, scores: Any) -> None:
    """`scores[i]` = q times the `i`th of `count` keys."""
    head_dim = len(q)
    size, out = row_bytes(head_dim, kind), scores.ctypes.data
    _score_rows(q.ctypes.data, 0, keys, head_dim, out, FP32_BYTES, count, kind)
    for i in range(head_dim // CHUNK * CHUNK, head_dim):
        for row in range(count):
            scores[row] += q[i] * element(keys + row * size, i, kind)
    if kind == INT8:
        for row in range(count):
            scores[row] *= scale_of(keys + row * size, head_dim)


@inner
def _add(sums: Any, weights: Any, values: int, count: int, kind: int) -> None:
    """`sums += weights[:count] @ values`; in int8 the weights take up the values' scales."""
    head_dim = len(sums)
    size, factors = row_bytes(head_dim, kind), weights.ctypes.data
    if kind == INT8:
        for row in range(count):
            weights[row] *= scale_of(values + row * size, head_dim)
    _add_rows(factors, FP32_BYTES, values, head_dim, sums.ctypes.data, 0, count, kind)
    for i in range(head_dim // CHUNK * CHUNK, head_dim):
        for row in range(count):
            sums[i] += weights[row] * element(values + row * size, i, kind)


@inner
def _place(index: int, head_dim: int, kind: int) -> int:
    is_left_over = index >= head_dim // CHUNK * CHUNK
    return index if is_left_over else place(index, kind)


@inner
def _weigh(weights: Any, count: int, peak: Any) -> tuple[Any, Any]:
    """Scores become weights, relative to the greatest so far; that one, and their sum."""
    highest, total = peak, np.float32(0)
    for i in range(count):
        highest = max(highest, weights[i])
    for i in range(count):
        weights[i] = exp(weights[i] - highest)
    for i in range(count):
        total += weights[i]
    return highest, total


@inner
def _ask(address: int, size: int) -> None:
    """Asks memory for what will be read soon: blocks lie anywhere, as no processor guesses."""
    for offset in range(0, size, LINE):
        prefetch(address + offset)


@inner
def _attend(
    q: Any, table: Any, start: int, stop: int, geometry: tuple[int, ...], sums: Any
) -> tuple[Any, Any]:
    """Sums of values over context `start:stop`, not yet divided by their weights' sum; the
    greatest score and that sum."""
    k_cache, v_cache, heads, head, block_size, kind = geometry
    size = row_bytes(len(q), kind)
    weights = np.empty(TILE, np.float32)
    peak, total = LOWEST, np.float32(0)
    while start < stop:
        count = 0
        while count < TILE and start + count < stop:
            at, offset = (start + count) // block_size, (start + count) % block_size
            length = min(block_size - offset, TILE - count, stop - start - count)
            row = (table[at] * heads + head) * block_size + offset
            _ask(v_cache + row * size, length * size)
            if start + count + length < stop and offset + length == block_size:
                following = (table[at + 1] * heads + head) * block_size
                _ask(k_cache + following * size, block_size * size)
            _score(q, k_cache + row * size, length, kind, weights[count:])
            count += length
        highest, part = _weigh(weights, count, peak)
        shrink = exp(peak - highest)
        peak, total = highest, total * shrink + part
        for i in range(len(sums)):
            sums[i] *= shrink
        done = 0
        while done < count:
            at, offset = (start + done) // block_size, (start + done) % block_size
            length = min(block_size - offset, count - done)
            row = (table[at] * heads + head) * block_size + offset
            _add(sums, weights[done:], v_cache + row * size, length, kind)
            done += length
        start += count
    return peak, total


@inner
def _spread(sums: Any, factor: Any, out: int, kind: int) -> None:
    """`sums * factor`, back in the elements' own order."""
    to = floats_at(out)
    for i in range(len(sums)):
        to[i] = sums[_place(i, len(sums), kind)] * factor


@kernel
def _decode(params: int, task: int) -> None:
    p = carray(ints_at(params), NUM_PARAMS)
    heads, head_dim, block_size, pieces, kind = p[5], p[6], p[7], p[12], p[14]
    piece, rest = task % pieces, task // pieces
    index, head = rest // heads, rest % heads
    row, context = ints_at(p[8])[index], ints_at(p[9])[index]
    length = -(-context // pieces)
    table = ints_at(p[10] + index * p[11] * INT_BYTES)
    q_address = p[0] + (row * 3 * heads + head) * head_dim * FP32_BYTES
    q = np.empty(head_dim, np.float32)
    for i in range(head_dim):
        q[_place(i, head_dim, kind)] = floats_at(q_address)[i]
    sums = np.zeros(head_dim, np.float32)
    geometry = (p[3], p[4], heads, head, block_size, kind)
    start, stop = piece * length, min(context, (piece + 1) * length)
    peak, total = _attend(q, table, start, stop, geometry, sums)
    if pieces == 1:
        out = p[1] + (row * p[2] + head * head_dim) * FP32_BYTES
        _spread(sums, np.float32(1) / total, out, kind)
        return
    partial = floats_at(p[13] + task * (head_dim + 2) * FP32_BYTES)
    for i in range(head_dim):
        partial[i] = sums[i]
    partial[head_dim], partial[head_dim + 1] = peak, total


@kernel
def _merge(params: int, task: int) -> None:
    """The pieces of one row's head into one: each weighs as much as its scores."""
    p = carray(ints_at(params), NUM_PARAMS)
    heads, head_dim, pieces = p[5], p[6], p[12]
    index, head = task // heads, task % heads
    size = head_dim + 2
    partials = floats_at(p[13] + task * pieces * size * FP32_BYTES)
    highest = LOWEST
    for piece in range(pieces):
        highest = max(highest, partials[piece * size + head_dim])
    sums = np.zeros(head_dim, np.float32)
    total = np.float32(0)
    for piece in range(pieces):
        weight = exp(partials[piece * size + head_dim] - highest)
        total += weight * partials[piece * size + head_dim + 1]
        for i in range(head_dim):
            sums[i] += weight * partials[piece * size + i]
    out = p[1] + (ints_at(p[8])[index] * p[2] + head * head_dim) * FP32_BYTES
    _spread(sums, np.float32(1) / total, out, p[14])
