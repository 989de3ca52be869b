"""The torch reference of what precedes a draw: counts, penalties, entries."""

import torch
from torch import Tensor

from moss_tp.kernels.cuda.sampling.ids import resolve
from moss_tp.kernels.cuda.sampling.packing import block as b
from moss_tp.kernels.cuda.sampling.packing.block import Kind, SamplingInputs
from moss_tp.kernels.cuda.sampling.workspace import ONE_OUTPUT, SEEN, SamplerState


def append(inputs: SamplingInputs, state: SamplerState) -> None:
    """Counts the step's appends."""
    num_appends = int(inputs.header[b.NUM_APPENDS])
    if not num_appends:
        return
    slots, ids = inputs.appends[:, :num_appends]
    for slot, token_id in zip(slots.tolist(), resolve(ids, state.sampled).tolist(), strict=True):
        state.counts[slot, token_id] = (state.counts[slot, token_id] | SEEN) + ONE_OUTPUT


def process(scores: Tensor, inputs: SamplingInputs, counts: Tensor) -> Tensor:
    """fp32 logits `(R, V)` after penalties, biases and blocked ids; changes `scores`."""
    ints = inputs.ints[: len(scores)]
    (counted,) = torch.where((ints[:, b.SLOT] >= 0) & (ints[:, b.KIND] != Kind.IDLE))
    if len(counted):
        own = counts[ints[counted, b.SLOT].long()]
        _count_drafted(own, counted.tolist(), ints)
        scores[counted] = _penalize(scores[counted], own, inputs.floats[counted])
    (changed,) = torch.where(ints[:, b.END_ENTRY] > ints[:, b.FIRST_ENTRY])
    entries = inputs.more_entries if inputs.header[b.HAS_MORE_ENTRIES] else inputs.entries
    for row in changed.tolist():
        first, end = ints[row, [b.FIRST_ENTRY, b.END_ENTRY]].tolist()
        values = entries[1].view(torch.float32)[first:end]
        scores[row, entries[0, first:end].long()] += values
    return scores


def _count_drafted(own: Tensor, rows: list[int], ints: Tensor) -> None:
    """Adds to `own (N, V)`, the counts of `rows`, the drafted ids before them."""
    for index, row in enumerate(rows):
        num_drafted = int(ints[row, b.NUM_DRAFTED])
        for token_id in ints[row + 1 - num_drafted : row + 1, b.DRAFT_ID].tolist():
            own[index, token_id] = (own[index, token_id] | SEEN) + ONE_OUTPUT


def _penalize(scores: Tensor, counts: Tensor, settings: Tensor) -> Tensor:
    repetition, presence, frequency = (
        settings[:, [place]] for place in (b.REPETITION, b.PRESENCE, b.FREQUENCY)
    )
    scaled = torch.where(scores < 0, scores * repetition, scores / repetition)
    scores = torch.where((counts & SEEN) > 0, scaled, scores)
    num_output = counts // ONE_OUTPUT
    scores = scores - frequency * num_output
    return scores - presence * (num_output > 0)
