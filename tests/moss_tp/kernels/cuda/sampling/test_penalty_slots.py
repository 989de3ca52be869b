"""Counts on the device against the histories they follow, token by token."""

import gc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.kernels.cuda.sampling.device_sampler import DeviceSampler
from moss_tp.kernels.cuda.sampling.packing.penalty_slots import PenaltySlots
from moss_tp.kernels.cuda.sampling.workspace import ONE_OUTPUT, SEEN
from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling.token_history import TokenCounts, TokenHistory
from moss_tp.sampling_params import SamplingParams

VOCAB, MAX_ROWS, MAX_SEQS = 40, 8, 3
PARAMS = SamplingParams(temperature=1, presence_penalty=0.5, repetition_penalty=1.3)
CPU = torch.device("cpu")
# A step: a sequence takes part or not; whether its newest id is still pending, or ids are drafted.
steps = st.lists(
    st.tuples(
        st.sets(st.integers(0, 4), max_size=MAX_SEQS), st.sampled_from(["", "pending", "ab"])
    ),
    max_size=12,
)


def make_sampler() -> DeviceSampler:
    return DeviceSampler(VOCAB, MAX_ROWS, MAX_SEQS, CPU, lambda work: work())


def expected(counts: TokenCounts) -> torch.Tensor:
    row = torch.zeros(VOCAB, dtype=torch.int32)
    row[torch.from_numpy(counts.ids)] = torch.from_numpy(
        SEEN + ONE_OUTPUT * counts.num_output
    ).int()
    return row


def run(sampler: DeviceSampler, rows: Sequence[SamplingRow], seed: int) -> list[int]:
    block = np.zeros(sampler.num_ints, np.int32)
    sampler.encode(rows, block, len(rows))
    logits = torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(seed))
    sampler.sample(logits, torch.from_numpy(block))
    return [token.token_id for token in sampler.decode(sampler.outputs.clone(), rows)]


def slot_of(sampler: DeviceSampler, history: TokenHistory) -> int:
    return sampler._slots._slots[history].index


@given(steps)
@settings(deadline=None, max_examples=60)
def test_counts_follow_the_histories(steps: list[tuple[set[int], str]]) -> None:
    """Sequences come and go, more than there are slots; ids are accepted by ones and threes."""
    sampler = make_sampler()
    histories = [TokenHistory([i, i + 1]) for i in range(5)]
    pending: dict[int, int] = {}
    for number, (active, mode) in enumerate(steps):
        for i in list(pending):  # what is sampled becomes known, unless the next step needs it
            if mode != "pending" or i not in active:
                histories[i].append(pending.pop(i))
        rows: list[SamplingRow] = []
        for i in sorted(active):
            position = histories[i].num_output + (i in pending)
            row = SamplingRow(PARAMS, i, position, histories[i])
            rows.append(row)
            if mode == "ab" and len(active) < MAX_SEQS:
                rows += [replace(row, position=position + n, drafted=(7, 7)[:n]) for n in (1, 2)]
        sampled = run(sampler, rows, number)
        for i in list(pending):
            histories[i].append(pending.pop(i))
        for i in sorted(active):
            counts = sampler.state.counts[slot_of(sampler, histories[i])]
            assert torch.equal(counts, expected(histories[i].counts))
            index = next(j for j, row in enumerate(rows) if row.history is histories[i])
            if mode == "ab" and len(active) < MAX_SEQS:
                for token_id in (7, 7, sampled[index + 2]):
                    histories[i].append(token_id)
            else:
                pending[i] = sampled[index]


def test_a_pending_id_is_taken_from_the_row_before() -> None:
    sampler, history = make_sampler(), TokenHistory([1])
    other = SamplingRow(SamplingParams(temperature=0, repetition_penalty=1), 0, 0)
    row = SamplingRow(PARAMS, 5, 0, history)
    sampled = run(sampler, [other, row], 1)
    run(sampler, [replace(row, position=1), other], 2)
    history.append(sampled[1])
    assert sampled[0] != sampled[1]
    assert torch.equal(sampler.state.counts[slot_of(sampler, history)], expected(history.counts))


def test_two_pending_ids_are_refused() -> None:
    slots = PenaltySlots(2, 8)
    with pytest.raises(ValueError, match="2 tokens of a sequence with penalties are pending"):
        slots.update([SamplingRow(PARAMS, 0, 2, TokenHistory([1]))])


def test_slots_are_free_when_histories_die() -> None:
    slots = PenaltySlots(2, 8)
    first, second = TokenHistory([1]), TokenHistory([2])
    assert slots.update([SamplingRow(PARAMS, 0, 0, h) for h in (first, second)]).slots == [0, 1]
    assert slots.num_free == 0
    del first
    gc.collect()
    assert slots.num_free == 1
    changes = slots.update([SamplingRow(PARAMS, 0, 0, TokenHistory([3]))])
    assert changes.slots == [0]
    assert [slot for slot, _ in changes.fills] == [0]


def test_a_slot_that_was_taken_away_is_freed_once() -> None:
    slots = PenaltySlots(1, 8)
    first, second = TokenHistory([1]), TokenHistory([2])
    for history in (first, second):
        slots.update([SamplingRow(PARAMS, 0, 0, history)])
    del first, history
    gc.collect()
    assert slots.num_free == 0
    del second
    gc.collect()
    assert slots.num_free == 1


def test_more_sequences_than_slots_are_refused() -> None:
    rows = [SamplingRow(PARAMS, 0, 0, TokenHistory([i])) for i in range(3)]
    with pytest.raises(RuntimeError, match="more sequences with penalties than there are slots"):
        PenaltySlots(2, 8).update(rows)


def test_a_step_that_is_made_once_more_is_counted_once() -> None:
    """The first attempt failed, and its appends may have run or not."""
    for has_run in (False, True):
        sampler, history = make_sampler(), TokenHistory([1])
        row = SamplingRow(PARAMS, 5, 0, history)
        run(sampler, [row], 1)
        history.append(3)
        row = replace(row, position=1)
        if has_run:
            run(sampler, [row], 2)
        else:
            sampler.encode([row], np.zeros(sampler.num_ints, np.int32), 1)
        run(sampler, [row], 2)
        assert torch.equal(
            sampler.state.counts[slot_of(sampler, history)], expected(history.counts)
        )
