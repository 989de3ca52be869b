"""Sorts a row's best ids and draws one of them; or writes them, where they are logprobs."""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit, kernel
from moss_tp.kernels.cuda.sampling.functions import (
    EOS_BONUS,
    EOS_ID,
    IS_TOP_P,
    KIND,
    MAX_ID,
    MIN_LOG_WEIGHT,
    NOTHING,
    RECORD,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    descending,
    pick,
    target_of,
    uniform,
    value_of,
    whole_weight,
)
from moss_tp.kernels.cuda.sampling.select import MAX_LOGPROBS, num_best


@kernel("num_chunks", "max_rows", unaligned=("top_ids", "top_logprobs"))
def best_kernel(
    ints: tl.tensor,
    doubles: tl.tensor,
    longs: tl.tensor,
    best: tl.tensor,  # (2, max_rows, 256) int64
    chunk_masses: tl.tensor,  # (R, chunks)
    log_sums: tl.tensor,
    keeps_more: tl.tensor,
    ids: tl.tensor,  # (R,)
    top_ids: tl.tensor,  # (R, MAX_LOGPROBS)
    top_logprobs: tl.tensor,
    vocab_size: tl.tensor,
    num_chunks: tl.tensor,
    max_rows: tl.tensor,
    CHUNKS: tl.constexpr,
    SCALE: tl.constexpr,
) -> None:
    """On grid (R, 2)."""
    row, plane = tl.program_id(0), tl.program_id(1)
    count = tl.minimum(num_best(ints + row * RECORD, plane), vocab_size)
    if count > 0:
        rank = tl.arange(0, 256)
        at = (plane * max_rows + row).to(tl.int64) * 256
        keys = tl.load(best + at + rank, mask=rank < count, other=-1)
        keys = descending(keys, rank, 8)
        values = value_of((keys >> 31).to(tl.uint32))
        token_ids = ((keys & MAX_ID) ^ MAX_ID).to(tl.int32)
        if plane != 0:
            is_written = (rank < MAX_LOGPROBS) & (rank < count)
            logprobs = (values.to(tl.float64) - tl.load(log_sums + row)).to(tl.float32)
            tl.store(top_ids + row * MAX_LOGPROBS + rank, token_ids, mask=is_written)
            tl.store(top_logprobs + row * MAX_LOGPROBS + rank, logprobs, mask=is_written)
        else:
            chunk = tl.arange(0, CHUNKS)
            masses = chunk_masses + row * num_chunks + chunk
            is_tail = tl.load(ints + row * RECORD + KIND) == IS_TOP_P
            total = tl.sum(tl.load(masses, mask=is_tail & (chunk < num_chunks), other=0), 0)
            number = uniform(longs, row)
            settings = doubles + row * (RECORD // 2)
            record = ints + row * RECORD
            index, more = _draw(
                values, token_ids, rank, count, total, number, settings, record, SCALE
            )
            tl.store(ids + row, tl.sum(tl.where(rank == index, token_ids, 0), 0))
            tl.store(keeps_more + row, more)


@jit
def _draw(
    values: tl.tensor,  # (256,) in descending order
    ids: tl.tensor,
    rank: tl.tensor,
    count: tl.tensor,
    total: tl.tensor,  # the weight of the whole vocabulary; 0: that of the best
    number: tl.tensor,
    settings: tl.tensor,
    record: tl.tensor,
    SCALE: tl.constexpr,
) -> tl.tensor:
    """The rank that `number` selects, and whether no id was cut in a row with a tail."""
    top = tl.max(tl.where(rank < count, values, NOTHING), 0)
    log_weights = (values - top).to(tl.float64) / tl.load(settings + TEMPERATURE)
    is_kept = rank < tl.minimum(count, tl.load(record + TOP_K))
    weights = whole_weight(log_weights, is_kept, SCALE)
    before = tl.cumsum(weights, 0) - weights
    has_tail = total > 0
    total = tl.where(has_tail, total, tl.sum(weights, 0))
    is_kept = is_kept & (before.to(tl.float64) < tl.load(settings + TOP_P) * total.to(tl.float64))
    is_kept = is_kept & (log_weights >= tl.load(settings + MIN_LOG_WEIGHT))
    is_kept = is_kept | (rank == 0)
    keeps_last = tl.max((is_kept & (rank == 255)).to(tl.int32), 0)
    log_weights = log_weights + tl.where(
        ids == tl.load(record + EOS_ID), tl.load(settings + EOS_BONUS), 0.0
    )
    log_weights = log_weights - tl.max(tl.where(is_kept, log_weights, NOTHING), 0)
    weights = whole_weight(log_weights, is_kept, SCALE)
    target = target_of(number, tl.sum(weights, 0))
    index = tl.minimum(pick(tl.cumsum(weights, 0), target), count - 1)
    return index, tl.where(has_tail, keeps_last, 0)
