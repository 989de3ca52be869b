"""The best ids of a row, in two steps: the groups that hold them, then they themselves.

The k best of all ids lie in the k groups with the best maxima: of equal ones in the first, since
groups are neighbouring ids, and the lowest of equal ids is the best.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit, kernel
from moss_tp.kernels.cuda.sampling.functions import (
    BEST_64,
    EOS_ID,
    GREEDY,
    IDLE,
    IS_TOP_P,
    KIND,
    MAX_ID,
    NOTHING,
    NUM_LOGPROBS,
    RECORD,
    ascending,
    greatest,
)
from moss_tp.sampling_params import MAX_LOGPROBS as _MAX_LOGPROBS

MAX_LOGPROBS = tl.constexpr(_MAX_LOGPROBS)


@jit
def num_best(record: tl.tensor, plane: tl.tensor) -> tl.tensor:
    """How many of the best ids a row needs in a plane: 0 for none."""
    kind = tl.load(record + KIND)
    is_best = (kind >= BEST_64) & (kind <= IS_TOP_P)
    of_scores = tl.where(is_best, tl.where(kind == BEST_64, 64, 256), 0)
    has_logprobs = (kind != IDLE) & (tl.load(record + NUM_LOGPROBS) >= 0)
    return tl.where(plane == 0, of_scores, tl.where(has_logprobs, MAX_LOGPROBS, 0))


@kernel("num_groups", "num_chunks", "max_rows")
def groups_kernel(
    ints: tl.tensor,
    scores: tl.tensor,
    group_best: tl.tensor,  # (2, max_rows, groups)
    groups: tl.tensor,  # (2, max_rows, 256)
    chunk_log_sums: tl.tensor,
    log_sums: tl.tensor,
    extremes: tl.tensor,  # (R, 2)
    ids: tl.tensor,  # (R,): of greedy rows
    vocab_size: tl.tensor,
    num_groups: tl.tensor,
    num_chunks: tl.tensor,
    max_rows: tl.tensor,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,  # next power of 2
    CHUNKS: tl.constexpr,  # next power of 2
) -> None:
    """On grid (R, 2)."""
    row, plane = tl.program_id(0), tl.program_id(1)
    record = ints + row * RECORD
    kind = tl.load(record + KIND)
    count = tl.minimum(num_best(record, plane), num_groups)
    if (count > 0) | ((kind != IDLE) & (plane == 0)):
        at = (plane * max_rows + row).to(tl.int64)
        group = tl.arange(0, GROUPS)
        is_group = group < num_groups
        best = tl.load(group_best + at * num_groups + group, mask=is_group, other=NOTHING)
        if plane == 0:
            own = scores + row.to(tl.int64) * vocab_size
            eos_id = tl.load(record + EOS_ID)
            _store_extremes(own, extremes + 2 * row, best, group, eos_id, vocab_size, GROUP)
            if kind == GREEDY:
                tl.store(ids + row, _argmax(own, best, group, vocab_size, GROUP))
        else:
            chunk = tl.arange(0, CHUNKS)
            sums = chunk_log_sums + row * num_chunks + chunk
            log_sum = tl.load(sums, mask=chunk < num_chunks, other=NOTHING)
            top = tl.max(log_sum, 0)
            total = tl.sum(tl.exp(log_sum - top), 0)
            tl.store(log_sums + row, tl.log(total) + top)
        if count > 0:
            keys = tl.where(is_group, ascending(best), 0)
            is_best = greatest(keys, count)
            place = tl.cumsum(is_best.to(tl.int32), 0) - 1
            tl.store(groups + at * 256 + place, group, mask=is_best)


@jit
def _argmax(
    scores: tl.tensor,
    best: tl.tensor,
    group: tl.tensor,
    vocab_size: tl.tensor,
    GROUP: tl.constexpr,
) -> tl.tensor:
    """The lowest id with the best score; an id of the vocabulary in any case."""
    first = tl.min(tl.where(best == tl.max(best, 0), group, MAX_ID), 0)
    ids = tl.where(first == MAX_ID, 0, first) * GROUP + tl.arange(0, GROUP)
    x = tl.load(scores + ids, mask=ids < vocab_size, other=NOTHING)
    return tl.minimum(tl.min(tl.where(x == tl.max(x, 0), ids, MAX_ID), 0), vocab_size - 1)


@jit
def _store_extremes(
    scores: tl.tensor,
    extremes: tl.tensor,
    best: tl.tensor,
    group: tl.tensor,
    eos_id: tl.tensor,
    vocab_size: tl.tensor,
    GROUP: tl.constexpr,
) -> None:
    tl.store(extremes, tl.max(best, 0))
    if eos_id >= 0:
        ids = eos_id // GROUP * GROUP + tl.arange(0, GROUP)
        x = tl.load(scores + ids, mask=(ids < vocab_size) & (ids != eos_id), other=NOTHING)
        others = tl.max(tl.where(group == eos_id // GROUP, NOTHING, best), 0)
        tl.store(extremes + 1, tl.maximum(others, tl.max(x, 0)))


@kernel("num_groups", "max_rows")
def candidates_kernel(
    ints: tl.tensor,
    logits: tl.tensor,
    scores: tl.tensor,
    groups: tl.tensor,  # (2, max_rows, 256)
    best: tl.tensor,  # (2, max_rows, 256) int64
    logits_stride: tl.tensor,
    vocab_size: tl.tensor,
    num_groups: tl.tensor,
    max_rows: tl.tensor,
    GROUP: tl.constexpr,
) -> None:
    """The best ids as keys: those of greater scores are greater, then those of lower ids. On grid
    (R, 2)."""
    row, plane = tl.program_id(0), tl.program_id(1)
    count = num_best(ints + row * RECORD, plane)
    at = (plane * max_rows + row).to(tl.int64) * 256
    if count > 0:
        num_held = tl.minimum(count, num_groups)
        if plane != 0:
            raw = logits + row.to(tl.int64) * logits_stride
            _select(raw, groups + at, best + at, num_held, count, vocab_size, 64, GROUP)
        else:
            own = scores + row.to(tl.int64) * vocab_size
            if count <= 64:
                _select(own, groups + at, best + at, num_held, count, vocab_size, 64, GROUP)
            else:
                _select(own, groups + at, best + at, num_held, count, vocab_size, 256, GROUP)


@jit
def _select(
    scores: tl.tensor,
    groups: tl.tensor,
    best: tl.tensor,
    num_held: tl.tensor,
    count: tl.tensor,
    vocab_size: tl.tensor,
    HELD: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    candidate = tl.arange(0, HELD * GROUP)
    is_held = candidate // GROUP < num_held
    group = tl.load(groups + candidate // GROUP, mask=is_held, other=0)
    ids = group * GROUP + candidate % GROUP
    is_id = is_held & (ids < vocab_size)
    x = tl.load(scores + ids, mask=is_id, other=NOTHING).to(tl.float32)
    keys = tl.where(is_id, ascending(x), 0)
    is_best = greatest(keys, tl.minimum(count, vocab_size))
    place = tl.cumsum(is_best.to(tl.int32), 0) - 1
    packed = (keys.to(tl.int64) << 31) | (ids ^ MAX_ID).to(tl.int64)
    tl.store(best + place, packed, mask=is_best)
