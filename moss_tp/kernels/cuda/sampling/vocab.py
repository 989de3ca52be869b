"""Draws from the whole vocabulary, in the order of ids: first the chunk, then the id in it.

Weights are whole numbers, so nothing depends on the order of a sum.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit, kernel
from moss_tp.kernels.cuda.sampling.functions import (
    EOS_BONUS,
    EOS_ID,
    IDLE,
    IS_TOP_P,
    KIND,
    MIN_LOG_WEIGHT,
    NOTHING,
    NUM_LOGPROBS,
    RECORD,
    TEMPERATURE,
    VOCAB,
    VOCAB_CUT,
    pick,
    target_of,
    uniform,
    whole_weight,
)
from moss_tp.kernels.cuda.sampling.search import lowest_kept


@kernel()
def masses_kernel(
    ints: tl.tensor,
    doubles: tl.tensor,
    scores: tl.tensor,  # (R, vocab_size)
    extremes: tl.tensor,
    chunk_masses: tl.tensor,  # (R, chunks)
    vocab_size: tl.tensor,
    CHUNK: tl.constexpr,
    SCALE: tl.constexpr,
) -> None:
    """Weights of each chunk, of rows without top-k or with top-p. On grid (R, chunks)."""
    row, chunk = tl.program_id(0), tl.program_id(1)
    record, settings = ints + row * RECORD, doubles + row * (RECORD // 2)
    kind = tl.load(record + KIND)
    if (kind == IS_TOP_P) | (kind == VOCAB):
        ids = chunk * CHUNK + tl.arange(0, CHUNK)
        x = tl.load(
            scores + row.to(tl.int64) * vocab_size + ids, mask=ids < vocab_size, other=NOTHING
        )
        distance = x - tl.load(extremes + 2 * row)
        if kind == VOCAB:
            shift = _shift(
                scores + row.to(tl.int64) * vocab_size,
                extremes + 2 * row,
                record,
                settings,
                NOTHING,
            )
            weights = _kept_weights(distance, ids, NOTHING, shift, record, settings, SCALE)
        else:
            log_weights = distance.to(tl.float64) / tl.load(settings + TEMPERATURE)
            weights = whole_weight(log_weights, distance > NOTHING, SCALE)
        total = tl.sum(weights, 0)
        tl.store(chunk_masses + row * tl.num_programs(1) + chunk, total)


@jit
def _kept_weights(
    distance: tl.tensor,  # fp32, from the best score
    ids: tl.tensor,
    lowest: tl.tensor,  # distance that top-k and top-p keep
    shift: tl.tensor,
    record: tl.tensor,
    settings: tl.tensor,
    SCALE: tl.constexpr,
) -> tl.tensor:
    log_weights = distance.to(tl.float64) / tl.load(settings + TEMPERATURE)
    is_kept = (distance >= lowest) & (log_weights >= tl.load(settings + MIN_LOG_WEIGHT))
    is_kept = is_kept & (distance > NOTHING)
    bonus = tl.where(ids == tl.load(record + EOS_ID), tl.load(settings + EOS_BONUS), 0.0)
    return whole_weight(log_weights + bonus - shift, is_kept, SCALE)


@jit
def _shift(
    scores: tl.tensor,
    extremes: tl.tensor,
    record: tl.tensor,
    settings: tl.tensor,
    lowest: tl.tensor,
) -> tl.tensor:
    """fp64: the greatest log weight that is kept, with eos's bonus."""
    eos_id = tl.load(record + EOS_ID)
    best = tl.load(extremes)
    own = tl.load(scores + tl.maximum(eos_id, 0)) - best
    other = tl.load(extremes + 1, mask=eos_id >= 0, other=0.0) - best
    temperature, least = tl.load(settings + TEMPERATURE), tl.load(settings + MIN_LOG_WEIGHT)
    of_own = own.to(tl.float64) / temperature
    of_other = other.to(tl.float64) / temperature
    with_bonus = of_own + tl.load(settings + EOS_BONUS)
    is_own_kept = (own >= lowest) & (of_own >= least)
    is_other_kept = (other >= lowest) & (of_other >= least)
    with_bonus = tl.where(is_own_kept, with_bonus, NOTHING)
    of_other = tl.where(is_other_kept, of_other, NOTHING)
    return tl.where(eos_id < 0, 0.0, tl.maximum(with_bonus, of_other))


@kernel(unaligned=("logprobs",))
def vocab_kernel(
    ints: tl.tensor,
    doubles: tl.tensor,
    longs: tl.tensor,
    logits: tl.tensor,
    scores: tl.tensor,
    extremes: tl.tensor,
    chunk_masses: tl.tensor,
    log_sums: tl.tensor,
    keeps_more: tl.tensor,
    ids: tl.tensor,  # (R,)
    logprobs: tl.tensor,  # (R,)
    sampled: tl.tensor,  # (R,)
    logits_stride: tl.tensor,
    vocab_size: tl.tensor,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    PART: tl.constexpr,
    SCALE: tl.constexpr,
) -> None:
    """The last of a step's kernels: also logprobs of the sampled ids. On grid (R,)."""
    row = tl.program_id(0)
    record, settings = ints + row * RECORD, doubles + row * (RECORD // 2)
    kind = tl.load(record + KIND)
    token_id = 0
    if kind != IDLE:
        own = scores + row.to(tl.int64) * vocab_size
        best = tl.load(extremes + 2 * row)
        is_cut = kind == VOCAB_CUT
        if kind == IS_TOP_P:
            is_cut = tl.load(keeps_more + row) != 0
        if is_cut | (kind == VOCAB):
            lowest = tl.full((), NOTHING, tl.float32)
            masses = chunk_masses + row * tl.cdiv(vocab_size, CHUNK)
            if is_cut:
                lowest = lowest_kept(
                    own, best, masses, record, settings, vocab_size, CHUNK, CHUNKS, PART, SCALE
                )
            shift = _shift(own, extremes + 2 * row, record, settings, lowest)
            sums = _chunk_sums(
                own,
                best,
                lowest,
                shift,
                masses,
                is_cut,
                record,
                settings,
                vocab_size,
                CHUNK,
                CHUNKS,
                SCALE,
            )
            target = target_of(uniform(longs, row), tl.sum(sums, 0))
            token_id = _find(
                own,
                best,
                lowest,
                shift,
                sums,
                target,
                record,
                settings,
                vocab_size,
                CHUNK,
                CHUNKS,
                SCALE,
            )
        else:
            token_id = tl.load(ids + row)
        if tl.load(record + NUM_LOGPROBS) >= 0:
            logit = tl.load(logits + row.to(tl.int64) * logits_stride + token_id).to(tl.float64)
            tl.store(logprobs + row, (logit - tl.load(log_sums + row)).to(tl.float32))
    tl.store(ids + row, token_id)
    tl.store(sampled + row, token_id)


@jit
def _chunk_sums(
    scores: tl.tensor,
    best: tl.tensor,
    lowest: tl.tensor,
    shift: tl.tensor,
    masses: tl.tensor,
    is_cut: tl.tensor,
    record: tl.tensor,
    settings: tl.tensor,
    vocab_size: tl.tensor,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    SCALE: tl.constexpr,
) -> tl.tensor:
    """`(CHUNKS,)` weights of what is kept."""
    chunk = tl.arange(0, CHUNKS)
    num_chunks = tl.cdiv(vocab_size, CHUNK)
    sums = tl.load(masses + chunk, mask=chunk < num_chunks, other=0)
    if is_cut:
        for index in range(num_chunks):
            ids = index * CHUNK + tl.arange(0, CHUNK)
            x = tl.load(scores + ids, mask=ids < vocab_size, other=NOTHING)
            weights = _kept_weights(x - best, ids, lowest, shift, record, settings, SCALE)
            sums = tl.where(chunk == index, tl.sum(weights, 0), sums)
    return sums


@jit
def _find(
    scores: tl.tensor,
    best: tl.tensor,
    lowest: tl.tensor,
    shift: tl.tensor,
    sums: tl.tensor,
    target: tl.tensor,
    record: tl.tensor,
    settings: tl.tensor,
    vocab_size: tl.tensor,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    SCALE: tl.constexpr,
) -> tl.tensor:
    """The id at which the cumulative weight passes `target`."""
    chunk = tl.arange(0, CHUNKS)
    index = tl.minimum(pick(tl.cumsum(sums, 0), target), tl.cdiv(vocab_size, CHUNK) - 1)
    before = tl.sum(tl.where(chunk < index, sums, 0), 0)
    ids = index * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(scores + ids, mask=ids < vocab_size, other=NOTHING)
    weights = _kept_weights(x - best, ids, lowest, shift, record, settings, SCALE)
    place = pick(tl.cumsum(weights, 0), target - before)
    return tl.minimum(index * CHUNK + place, vocab_size - 1)
