"""Logits to scores: penalties, biases and blocked ids; and the best score of each group of ids."""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit, kernel
from moss_tp.kernels.cuda.sampling import workspace
from moss_tp.kernels.cuda.sampling.functions import (
    IDLE,
    KIND,
    NOTHING,
    NUM_LOGPROBS,
    RECORD,
    whole_weight,
)
from moss_tp.kernels.cuda.sampling.packing import block as b

HAS_MORE_ENTRIES = tl.constexpr(b.HAS_MORE_ENTRIES)
SLOT = tl.constexpr(b.SLOT)
REPETITION, PRESENCE = tl.constexpr(b.REPETITION), tl.constexpr(b.PRESENCE)
FREQUENCY = tl.constexpr(b.FREQUENCY)
NUM_DRAFTED, DRAFT_ID = tl.constexpr(b.NUM_DRAFTED), tl.constexpr(b.DRAFT_ID)
FIRST_ENTRY, END_ENTRY = tl.constexpr(b.FIRST_ENTRY), tl.constexpr(b.END_ENTRY)
SEEN, ONE_OUTPUT = tl.constexpr(workspace.SEEN), tl.constexpr(workspace.ONE_OUTPUT)


@kernel("num_groups", "plane", "num_entries", "num_more_entries")
def process_kernel(
    logits: tl.tensor,  # (R, vocab_size)
    header: tl.tensor,
    ints: tl.tensor,  # records; floats is the same memory
    floats: tl.tensor,
    entries: tl.tensor,
    more_entries: tl.tensor,
    counts: tl.tensor,  # (slots, vocab_size)
    scores: tl.tensor,  # (R, vocab_size)
    group_best: tl.tensor,  # (2, max_rows, groups)
    chunk_log_sums: tl.tensor,  # (R, chunks)
    logits_stride: tl.tensor,
    vocab_size: tl.tensor,
    num_groups: tl.tensor,
    plane: tl.tensor,  # max_rows * groups
    num_entries: tl.tensor,
    num_more_entries: tl.tensor,
    CHUNK: tl.constexpr,
    GROUP: tl.constexpr,
    SCALE: tl.constexpr,
) -> None:
    """On grid (R, chunks)."""
    row, chunk = tl.program_id(0), tl.program_id(1)
    record = ints + row * RECORD
    if tl.load(record + KIND) != IDLE:
        group = chunk * (CHUNK // GROUP) + tl.arange(0, CHUNK // GROUP)
        ids = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
        is_id = ids < vocab_size
        is_group = group < num_groups
        to_group = group_best + row.to(tl.int64) * num_groups + group
        x = tl.load(logits + row.to(tl.int64) * logits_stride + ids, mask=is_id, other=NOTHING)
        x = x.to(tl.float32)
        if tl.load(record + NUM_LOGPROBS) >= 0:
            tl.store(to_group + plane, tl.max(x, 1), mask=is_group)
            log_sum = _log_sum(x, SCALE)
            tl.store(chunk_log_sums + row * tl.num_programs(1) + chunk, log_sum)
        slot = tl.load(record + SLOT)
        if slot >= 0:
            own = counts + slot.to(tl.int64) * vocab_size
            seen = tl.load(own + ids, mask=is_id, other=0)
            seen = _count_drafted(seen, ids, record)
            x = _penalize(x, seen, floats + row * RECORD)
        if tl.load(header + HAS_MORE_ENTRIES) != 0:
            x = _add_entries(x, ids, record, more_entries, num_more_entries, chunk * CHUNK, CHUNK)
        else:
            x = _add_entries(x, ids, record, entries, num_entries, chunk * CHUNK, CHUNK)
        tl.store(scores + row.to(tl.int64) * vocab_size + ids, x, mask=is_id)
        tl.store(to_group, tl.max(tl.where(is_id, x, NOTHING), 1), mask=is_group)


@jit
def _log_sum(x: tl.tensor, SCALE: tl.constexpr) -> tl.tensor:
    """fp64: the log of the sum of exp(x)."""
    best = tl.max(tl.max(x, 1), 0)
    best = tl.where(best > NOTHING, best, 0.0)  # nothing, in a chunk without ids
    weights = whole_weight((x - best).to(tl.float64), x > NOTHING, SCALE)
    total = tl.sum(tl.sum(weights, 1), 0).to(tl.float64)
    return tl.where(total > 0.0, tl.log(tl.maximum(total, 1.0) / SCALE) + best, NOTHING)


@jit
def _count_drafted(seen: tl.tensor, ids: tl.tensor, record: tl.tensor) -> tl.tensor:
    for back in range(tl.load(record + NUM_DRAFTED)):
        drafted = tl.load(record - back * RECORD + DRAFT_ID)
        seen = tl.where(ids == drafted, (seen | SEEN) + ONE_OUTPUT, seen)
    return seen


@jit
def _penalize(x: tl.tensor, seen: tl.tensor, settings: tl.tensor) -> tl.tensor:
    repetition = tl.load(settings + REPETITION)
    scaled = tl.where(x < 0.0, x * repetition, tl.math.div_rn(x, tl.zeros_like(x) + repetition))
    x = tl.where((seen & SEEN) != 0, scaled, x)
    num_output = seen // ONE_OUTPUT
    x = x - tl.load(settings + FREQUENCY) * num_output.to(tl.float32)
    return x - tl.where(num_output > 0, tl.load(settings + PRESENCE), 0.0)


@jit
def _add_entries(
    x: tl.tensor,
    ids: tl.tensor,
    record: tl.tensor,
    entries: tl.tensor,  # (2, num_entries): ids, then bits of fp32
    num_entries: tl.tensor,
    start: tl.tensor,
    CHUNK: tl.constexpr,
) -> tl.tensor:
    for entry in range(tl.load(record + FIRST_ENTRY), tl.load(record + END_ENTRY)):
        token_id = tl.load(entries + entry)
        if (token_id >= start) & (token_id < start + CHUNK):
            value = tl.load(entries + num_entries + entry).to(tl.float32, bitcast=True)
            x = tl.where(ids == token_id, x + value, x)
    return x
