"""Decode attention: each row reads its own context, straight from the paged cache.

    out[row, h] = softmax(q[row, h] . K[context, h]) V[context, h]

One task is a split of one row's context, DECODE_SPLIT tokens, for some neighbouring heads: their
rows are side by side in a block, so memory is read in sequence. Splits begin at fixed places and
are merged afterwards, so a row's result does not depend on the rows beside it. The softmax is
online, block by block, in fp32.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.cpu.attention.cache_rows import (
    load_element,
    row_bytes,
    row_dtype,
    row_scale,
    store_row,
)
from moss_tp.kernels.cpu.attention.decode_rows import CHUNK, accumulate_rows, dot_rows, lane_order
from moss_tp.kernels.cpu.attention.decode_softmax import LOWEST, update_softmax
from moss_tp.kernels.cpu.attention.plan import DECODE_SPLIT, CpuPlan, StepAddresses
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.native.compiled import inner, kernel
from moss_tp.native.dtypes import INT8
from moss_tp.native.exp import exp
from moss_tp.native.llvm import FP32_BYTES, INT_BYTES
from moss_tp.native.memory import fp32_at, int64_at
from moss_tp.native.params import Address, params_reader
from moss_tp.native.vectors import LANES

TASKS_PER_THREAD = 4
PREFETCH_HEADS = 2  # how many heads ahead rows are prefetched


class DecodeParams(NamedTuple):
    step: Address  # StepAddresses
    qkv: Address  # (T, 3, H, D) fp32, q rotated and scaled
    out: Address  # (T, H * D)
    out_stride: int  # bytes
    k_cache: Address
    v_cache: Address
    num_heads: int
    head_dim: int
    block_size: int
    num_splits: int
    partials: Address  # (decode rows, H, num_splits, D + 2) fp32: sums, max, sum of weights
    cache_dtype: int
    out_dtype: int
    head_groups: int  # tasks that share a split


_read_params, _read_step = params_reader(DecodeParams), params_reader(StepAddresses)


def add_decode(
    program: Program, qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: CpuPlan
) -> None:
    """`qkv (T, 3, H, D)` as `add_store` leaves it, `out (T, H * D)` fp32 or bf16 with any row
    stride."""
    num_rows, num_heads, num_splits = plan.num_decode_rows, qkv.shape[2], plan.num_splits
    if not num_rows:
        return
    wanted = -(-TASKS_PER_THREAD * torch.get_num_threads() // (num_rows * num_splits))
    head_groups = max(1, min(wanted, num_heads))
    params = _params(qkv, out, cache, plan, head_groups)
    program.add(_decode, num_rows * head_groups * num_splits, params)
    if num_splits > 1:
        program.add(_merge, num_rows * num_heads, params)


def _params(
    qkv: Tensor, out: Tensor, cache: tuple[Tensor, Tensor], plan: CpuPlan, head_groups: int
) -> DecodeParams:
    k_cache, v_cache = cache
    num_heads, head_dim = qkv.shape[2:]
    num_partials = plan.num_decode_rows * num_heads * plan.num_splits if plan.num_splits > 1 else 0
    return DecodeParams(
        step=plan.step,
        qkv=qkv,
        out=out,
        out_stride=out.stride(0) * out.itemsize,
        k_cache=k_cache,
        v_cache=v_cache,
        num_heads=num_heads,
        head_dim=head_dim,
        block_size=k_cache.shape[2],
        num_splits=plan.num_splits,
        partials=torch.empty(num_partials, head_dim + 2),
        cache_dtype=row_dtype(k_cache.dtype),
        out_dtype=row_dtype(out.dtype),
        head_groups=head_groups,
    )


@inner
def _score(q: Any, keys: int, count: int, dtype: int, scores: Any, prefetch_offset: int) -> None:
    """`scores[i] = q . keys[i]` for `count` keys; see `dot_rows` for `prefetch_offset`."""
    head_dim = len(q)
    size = row_bytes(head_dim, dtype)
    dot_rows(
        q.ctypes.data, 0, keys, head_dim, scores.ctypes.data, FP32_BYTES, count, dtype,
        prefetch_offset,
    )  # fmt: skip
    for i in range(head_dim // CHUNK * CHUNK, head_dim):
        for row in range(count):
            scores[row] += q[i] * load_element(keys + row * size, i, dtype)
    if dtype == INT8:
        for row in range(count):
            scores[row] *= row_scale(keys + row * size, head_dim)


@inner
def _accumulate(
    sums: Any, weights: Any, values: int, count: int, dtype: int, prefetch_offset: int
) -> None:
    """`sums += weights[:count] @ values`; INT8 rows' scales are multiplied into `weights`."""
    head_dim = len(sums)
    size = row_bytes(head_dim, dtype)
    if dtype == INT8:
        for row in range(count):
            weights[row] *= row_scale(values + row * size, head_dim)
    accumulate_rows(
        weights.ctypes.data, FP32_BYTES, values, head_dim, sums.ctypes.data, 0, count, dtype,
        prefetch_offset,
    )  # fmt: skip
    for i in range(head_dim // CHUNK * CHUNK, head_dim):
        for row in range(count):
            sums[i] += weights[row] * load_element(values + row * size, i, dtype)


@inner
def _lane_index(index: int, head_dim: int, dtype: int) -> int:
    """Where the element `index` of a head stands in q and in the sums."""
    is_left_over = index >= head_dim // CHUNK * CHUNK
    return index if is_left_over else lane_order(index, dtype)


@inner
def _attend(
    q: Any, block_table: Any, first_head: int, span: tuple[int, int], p: Any, sums: Any, states: Any
) -> None:
    """Weighted sums of values over the tokens `span` for each head of q, from `first_head` on,
    not yet divided by the sum of weights; see `update_softmax` for `states`."""
    num_heads, head_dim = q.shape
    size = row_bytes(head_dim, p.cache_dtype)
    head_bytes = p.block_size * size
    weights = np.empty(-(-p.block_size // LANES) * LANES, np.float32)
    start, stop = span
    while start < stop:
        number, offset = start // p.block_size, start % p.block_size
        count = min(p.block_size - offset, stop - start)
        block = (block_table[number] * p.num_heads + first_head) * head_bytes
        next_block = block
        if start + count < stop:
            next_block = (block_table[number + 1] * p.num_heads + first_head) * head_bytes
        for head in range(num_heads):
            rows = block + head * head_bytes + offset * size
            prefetched = rows + PREFETCH_HEADS * head_bytes
            if head + PREFETCH_HEADS >= num_heads:
                ahead = (head + PREFETCH_HEADS - num_heads) % num_heads
                prefetched = next_block + ahead * head_bytes
            distance = prefetched - rows
            _score(q[head], p.k_cache + rows, count, p.cache_dtype, weights, distance)
            weights[count:] = LOWEST
            update_softmax(weights, states[head], sums[head])
            _accumulate(sums[head], weights, p.v_cache + rows, count, p.cache_dtype, distance)
        start += count


@inner
def _store_out(sums: Any, factor: Any, p: Any, row: int, head: int) -> None:
    """Writes `sums * factor`, its elements back in their own order."""
    head_dim = len(sums)
    values = np.empty(head_dim, np.float32)
    for i in range(head_dim):
        values[i] = sums[_lane_index(i, head_dim, p.cache_dtype)] * factor
    out = p.out + row * p.out_stride + head * row_bytes(head_dim, p.out_dtype)
    store_row(values, out, head_dim, p.out_dtype)


@inner
def _store_partial(sums: Any, state: Any, partials: int, number: int) -> None:
    head_dim = len(sums)
    partial = fp32_at(partials + number * (head_dim + 2) * FP32_BYTES)
    for i in range(head_dim):
        partial[i] = sums[i]
    partial[head_dim], partial[head_dim + 1] = state[0], state[1]


@kernel
def _decode(params: int, task: int) -> None:
    p = _read_params(params)
    step = _read_step(p.step)
    num_heads, head_dim, splits, groups = p.num_heads, p.head_dim, p.num_splits, p.head_groups
    split, group, index = task % splits, task // splits % groups, task // splits // groups
    row, seq = int64_at(step.decode_rows)[index], int64_at(step.decode_seqs)[index]
    context = int64_at(step.positions)[row] + 1
    first_head, last_head = group * num_heads // groups, (group + 1) * num_heads // groups
    own_heads = last_head - first_head
    q = np.empty((own_heads, head_dim), np.float32)
    for head in range(own_heads):
        start = (row * 3 * num_heads + first_head + head) * head_dim
        values = fp32_at(p.qkv + start * FP32_BYTES)
        for i in range(head_dim):
            q[head, _lane_index(i, head_dim, p.cache_dtype)] = values[i]
    sums = np.zeros((own_heads, head_dim), np.float32)
    states = np.zeros((own_heads, 2), np.float32)
    states[:, 0] = LOWEST
    block_table = int64_at(step.block_tables + seq * step.table_stride * INT_BYTES)
    span = (split * DECODE_SPLIT, min(context, (split + 1) * DECODE_SPLIT))
    _attend(q, block_table, first_head, span, p, sums, states)
    for head in range(own_heads):
        if splits == 1:
            _store_out(sums[head], np.float32(1) / states[head, 1], p, row, first_head + head)
        else:
            number = (index * num_heads + first_head + head) * splits + split
            _store_partial(sums[head], states[head], p.partials, number)


@kernel
def _merge(params: int, task: int) -> None:
    """Merges the splits of one row's head: rescales each to the greatest of their maxima."""
    p = _read_params(params)
    head_dim, splits = p.head_dim, p.num_splits
    index, head = task // p.num_heads, task % p.num_heads
    row = int64_at(_read_step(p.step).decode_rows)[index]
    size = head_dim + 2
    partials = fp32_at(p.partials + task * splits * size * FP32_BYTES)
    greatest = LOWEST
    for split in range(splits):
        greatest = max(greatest, partials[split * size + head_dim])
    sums = np.zeros(head_dim, np.float32)
    total = np.float32(0)
    for split in range(splits):
        rescale = exp(partials[split * size + head_dim] - greatest)
        total += rescale * partials[split * size + head_dim + 1]
        for i in range(head_dim):
            sums[i] += rescale * partials[split * size + i]
    _store_out(sums, np.float32(1) / total, p, row, head)
