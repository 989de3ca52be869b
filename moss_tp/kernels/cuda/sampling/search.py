"""What top-k above 256, or a top-p that keeps more than 256 ids, leaves of a vocabulary.

It is found digit by digit of the sort key, with exact sums, by one program a row: 8 passes over
the scores, that take some 0.4 ms on an H100 (computed, not measured). Few rows need it.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit
from moss_tp.kernels.cuda.sampling.functions import (
    KIND,
    NOTHING,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    VOCAB_CUT,
    ascending,
    value_of,
    whole_weight,
)

DIGITS = tl.constexpr(16)  # 4 bits of a key


@jit
def lowest_kept(
    scores: tl.tensor,
    best: tl.tensor,
    masses: tl.tensor,
    record: tl.tensor,
    settings: tl.tensor,
    vocab_size: tl.tensor,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    PART: tl.constexpr,
    SCALE: tl.constexpr,
) -> tl.tensor:
    """The lowest distance from the best score that top-k and then top-p keep, fp32."""
    temperature, top_p = tl.load(settings + TEMPERATURE), tl.load(settings + TOP_P)
    lowest = tl.full((), NOTHING, tl.float32)
    chunk = tl.arange(0, CHUNKS)
    if tl.load(record + KIND) == VOCAB_CUT:
        top_k = tl.load(record + TOP_K).to(tl.int64)
        lowest, above = _search(scores, best, temperature, top_k, vocab_size, False, PART, SCALE)
        total = _mass_above(scores, best, temperature, lowest, vocab_size, CHUNK, SCALE)
        weight = whole_weight(lowest.to(tl.float64) / temperature, lowest > NOTHING, SCALE)
        total = total + (top_k - above) * weight
    else:
        is_chunk = chunk < tl.cdiv(vocab_size, CHUNK)
        total = tl.sum(tl.load(masses + chunk, mask=is_chunk, other=0), 0)
    if top_p < 1.0:
        wanted = tl.ceil(top_p * total.to(tl.float64)).to(tl.int64)
        lowest, above = _search(scores, best, temperature, wanted, vocab_size, True, PART, SCALE)
    return lowest


@jit
def _mass_above(
    scores: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    lowest: tl.tensor,
    vocab_size: tl.tensor,
    CHUNK: tl.constexpr,
    SCALE: tl.constexpr,
) -> tl.tensor:
    total = tl.zeros((CHUNK,), tl.int64)
    for start in range(0, vocab_size, CHUNK):
        ids = start + tl.arange(0, CHUNK)
        distance = tl.load(scores + ids, mask=ids < vocab_size, other=NOTHING) - best
        log_weights = distance.to(tl.float64) / temperature
        total += whole_weight(log_weights, distance > lowest, SCALE)
    return tl.sum(total, 0)


@jit
def _search(
    scores: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    wanted: tl.tensor,
    vocab_size: tl.tensor,
    HAS_WEIGHTS: tl.constexpr,
    PART: tl.constexpr,
    SCALE: tl.constexpr,
) -> tl.tensor:
    """The greatest distance from which on upwards ids weigh `wanted`, or are so many; and what
    those above it weigh."""
    digit = tl.arange(0, DIGITS)
    found = (wanted * 0).to(tl.uint32)
    above = wanted * 0
    for step in range(8):
        shift = tl.full((), 28, tl.int32) - 4 * step
        sums = tl.zeros((DIGITS, PART), tl.int64)
        for start in range(0, vocab_size, PART):
            ids = start + tl.arange(0, PART)
            is_id = ids < vocab_size
            distance = tl.load(scores + ids, mask=is_id, other=NOTHING) - best
            if HAS_WEIGHTS:
                log_weights = distance.to(tl.float64) / temperature
                weights = whole_weight(log_weights, is_id & (distance > NOTHING), SCALE)
            else:
                weights = is_id.to(tl.int64)
            place = (ascending(distance).to(tl.int64) >> shift) - (found.to(tl.int64) >> shift)
            sums += tl.where(place[None, :] == digit[:, None], weights[None, :], 0)
        by_digit = tl.sum(sums, 1)
        total = tl.sum(by_digit, 0)
        from_digit = total - tl.cumsum(by_digit, 0) + by_digit
        is_enough = (above + from_digit >= wanted).to(tl.int32)
        greatest = tl.maximum(tl.sum(is_enough, 0) - 1, 0)
        above += tl.sum(tl.where(digit > greatest, by_digit, 0), 0)
        found = found | (greatest.to(tl.uint32) << shift.to(tl.uint32))
    return value_of(found), above
