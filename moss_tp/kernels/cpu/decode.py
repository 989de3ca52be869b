"""Attention of single queries: each reads its own context, straight out of the paged cache.

    out[row, h] = softmax(q[row, h] . K[context, h]) V[context, h]

One task is one head of one row, or a piece of its context where there are too few of those for
the threads; the pieces are then merged. Softmax is taken online, tile by tile, in fp32. In bf16
a word holds two neighbours, so even and odd elements are summed apart.
"""

from typing import Any

import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from moss_tp.kernels.cpu.compiled import inner, kernel
from moss_tp.kernels.cpu.simd import exp, floats_at, high_half, ints_at, low_half, words_at
from moss_tp.kernels.cpu.team import INT_BYTES, Program
from moss_tp.kernels.plan import AttentionPlan

NUM_PARAMS = 16
FP32_BYTES, BF16_BYTES = 4, 2
TILE = 128
MIN_PIECE = 2 * TILE
TASKS_PER_THREAD = 2
LOWEST = np.float32(-1e30)


def add_decode(
    program: Program, qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan
) -> None:
    """`qkv (T, 3, H, D)` as `add_store` leaves it, `out (T, H * D)` with any row stride."""
    num_rows = len(plan.rows)
    k_cache, v_cache = cache
    _, heads, block_size, head_dim = k_cache.shape
    num_heads = num_rows * heads
    if not num_rows:
        return
    wanted = -(-TASKS_PER_THREAD * torch.get_num_threads() // num_heads)
    pieces = max(1, min(wanted, plan.max_row_context // MIN_PIECE))
    partials = torch.empty(num_heads * pieces if pieces > 1 else 0, head_dim + 2)
    params: list[int | Tensor] = [
        qkv, out, out.stride(0), k_cache, v_cache, heads, head_dim, block_size, plan.rows,
        plan.row_contexts, plan.row_tables, plan.row_tables.shape[1], num_rows, pieces, partials,
        int(k_cache.dtype == torch.bfloat16),
    ]  # fmt: skip
    program.add(_decode, num_heads * pieces, params)
    if pieces > 1:
        program.add(_merge, num_heads, params)


@inner
def _score_words(q: Any, k: int, half_dim: int) -> np.float32:
    """q, even elements before odd ones, times one key in bf16."""
    words = words_at(k)
    even = odd = np.float32(0)
    for i in range(half_dim):
        even += q[i] * low_half(words[i])
        odd += q[half_dim + i] * high_half(words[i])
    return even + odd


@inner
def _score_floats(q: Any, k: int, head_dim: int) -> np.float32:
    floats = floats_at(k)
    total = np.float32(0)
    for i in range(head_dim):
        total += q[i] * floats[i]
    return total


@inner
def _add_words(sums: Any, weights: Any, count: int, v: int, half_dim: int) -> None:
    """`sums += weights[:count] @ values`, rows in bf16, four at a time."""
    words = words_at(v)
    even, odd = sums[:half_dim], sums[half_dim:]
    row = 0
    while row + 4 <= count:
        w0, w1, w2, w3 = weights[row], weights[row + 1], weights[row + 2], weights[row + 3]
        first = row * half_dim
        second, third, fourth = first + half_dim, first + 2 * half_dim, first + 3 * half_dim
        for i in range(half_dim):
            a, b, c, d = words[first + i], words[second + i], words[third + i], words[fourth + i]
            even[i] += w0 * low_half(a) + w1 * low_half(b) + w2 * low_half(c) + w3 * low_half(d)
            odd[i] += w0 * high_half(a) + w1 * high_half(b) + w2 * high_half(c) + w3 * high_half(d)
        row += 4
    while row < count:
        for i in range(half_dim):
            word = words[row * half_dim + i]
            even[i] += weights[row] * low_half(word)
            odd[i] += weights[row] * high_half(word)
        row += 1


@inner
def _add_floats(sums: Any, weights: Any, count: int, v: int, head_dim: int) -> None:
    floats = floats_at(v)
    for row in range(count):
        for i in range(head_dim):
            sums[i] += weights[row] * floats[row * head_dim + i]


@inner
def _gather(q: int, head_dim: int, is_bf16: int) -> Any:
    """The query, in bf16's order: even elements before odd ones."""
    values, ordered = floats_at(q), np.empty(head_dim, np.float32)
    if is_bf16:
        for i in range(head_dim // 2):
            ordered[i], ordered[head_dim // 2 + i] = values[2 * i], values[2 * i + 1]
    else:
        for i in range(head_dim):
            ordered[i] = values[i]
    return ordered


@inner
def _attend(
    q: Any, table: Any, start: int, stop: int, geometry: tuple[int, ...], sums: Any
) -> tuple[np.float32, np.float32]:
    """Sums of values over context `start:stop`, not yet divided by their weights' sum; the
    greatest score and that sum."""
    k_cache, v_cache, heads, head, head_dim, block_size, is_bf16 = geometry
    row_bytes = head_dim * (BF16_BYTES if is_bf16 else FP32_BYTES)
    weights = np.empty(TILE, np.float32)
    peak, total = LOWEST, np.float32(0)
    while start < stop:
        count = min(TILE, stop - start)
        done, highest = 0, peak
        while done < count:
            block, offset = table[(start + done) // block_size], (start + done) % block_size
            length = min(block_size - offset, count - done)
            k = k_cache + ((block * heads + head) * block_size + offset) * row_bytes
            for i in range(length):
                if is_bf16:
                    score = _score_words(q, k + i * row_bytes, head_dim // 2)
                else:
                    score = _score_floats(q, k + i * row_bytes, head_dim)
                weights[done + i] = score
                highest = max(highest, score)
            done += length
        shrink = exp(peak - highest)
        peak, part = highest, np.float32(0)
        for i in range(count):
            weights[i] = exp(weights[i] - peak)
            part += weights[i]
        total = total * shrink + part
        for i in range(head_dim):
            sums[i] *= shrink
        done = 0
        while done < count:
            block, offset = table[(start + done) // block_size], (start + done) % block_size
            length = min(block_size - offset, count - done)
            v = v_cache + ((block * heads + head) * block_size + offset) * row_bytes
            if is_bf16:
                _add_words(sums, weights[done:], length, v, head_dim // 2)
            else:
                _add_floats(sums, weights[done:], length, v, head_dim)
            done += length
        start += count
    return peak, total


@inner
def _spread(sums: Any, factor: float, out: int, head_dim: int, is_bf16: int) -> None:
    """`sums * factor`, back in the elements' own order."""
    to = floats_at(out)
    if is_bf16:
        half = head_dim // 2
        for i in range(half):
            to[2 * i], to[2 * i + 1] = sums[i] * factor, sums[half + i] * factor
    else:
        for i in range(head_dim):
            to[i] = sums[i] * factor


@kernel
def _decode(params: int, task: int) -> None:
    p = carray(ints_at(params), NUM_PARAMS)
    heads, head_dim, block_size, num_rows, pieces, is_bf16 = p[5], p[6], p[7], p[12], p[13], p[15]
    piece, rest = task % pieces, task // pieces
    index, head = rest % num_rows, rest // num_rows
    row, context = ints_at(p[8])[index], ints_at(p[9])[index]
    length = -(-context // pieces)
    table = ints_at(p[10] + index * p[11] * INT_BYTES)
    q_address = p[0] + (row * 3 * heads + head) * head_dim * FP32_BYTES
    q = _gather(q_address, head_dim, is_bf16)
    sums = np.zeros(head_dim, np.float32)
    geometry = (p[3], p[4], heads, head, head_dim, block_size, is_bf16)
    start, stop = piece * length, min(context, (piece + 1) * length)
    peak, total = _attend(q, table, start, stop, geometry, sums)
    if pieces == 1:
        out = p[1] + (row * p[2] + head * head_dim) * FP32_BYTES
        _spread(sums, np.float32(1) / total, out, head_dim, is_bf16)
        return
    partial = floats_at(p[14] + task * (head_dim + 2) * FP32_BYTES)
    for i in range(head_dim):
        partial[i] = sums[i]
    partial[head_dim], partial[head_dim + 1] = peak, total


@kernel
def _merge(params: int, task: int) -> None:
    """The pieces of one row's head into one: each weighs as much as its scores."""
    p = carray(ints_at(params), NUM_PARAMS)
    head_dim, num_rows, pieces = p[6], p[12], p[13]
    index, head = task % num_rows, task // num_rows
    size = head_dim + 2
    partials = floats_at(p[14] + task * pieces * size * FP32_BYTES)
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
    _spread(sums, np.float32(1) / total, out, head_dim, p[15])
