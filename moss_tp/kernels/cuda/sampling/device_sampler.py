"""The sampler as a step on a device uses it: encodes rows, samples, decodes what was sampled.

All of its tensors are allocated once, so that a graph may hold `sample`. What only some steps need
(counts of a new sequence, more entries than the block holds) is copied by `encode` itself.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moss_tp.kernels.cuda.sampling.packing import outputs
from moss_tp.kernels.cuda.sampling.packing.block import BlockLayout, SamplingInputs
from moss_tp.kernels.cuda.sampling.packing.encode import Encoder
from moss_tp.kernels.cuda.sampling.packing.outputs import SamplerOutputs
from moss_tp.kernels.cuda.sampling.packing.penalty_slots import PenaltySlots
from moss_tp.kernels.cuda.sampling.sample import sample
from moss_tp.kernels.cuda.sampling.workspace import ONE_OUTPUT, SEEN, SamplerScratch, SamplerState
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.token_history import TokenCounts
from moss_tp.sampling_params import MAX_BIASES, MAX_STOP_TOKEN_IDS

MAX_ENTRIES_OF_ROW = MAX_BIASES + MAX_STOP_TOKEN_IDS + 8  # its model's own stop ids

Launch = Callable[[Callable[[], None]], None]


class DeviceSampler:
    """For steps of up to `max_rows` rows of logits, of up to `max_seqs` sequences.

    `launch` queues work on the device, behind the steps that are queued by now: see
    `accelerator.base.Queue`. `encode` is called once for each step, in their order.
    """

    def __init__(
        self, vocab_size: int, max_rows: int, max_seqs: int, device: torch.device, launch: Launch
    ) -> None:
        self.vocab_size = vocab_size
        self.state = SamplerState.allocate(max_seqs, vocab_size, max_rows, device)
        self._layout = BlockLayout.of(max_rows)
        self._scratch = SamplerScratch.allocate(max_rows, vocab_size, device)
        self._outputs = SamplerOutputs.allocate(max_rows, device)
        size = (2, MAX_ENTRIES_OF_ROW * max_rows)
        self._more_entries = torch.zeros(size, dtype=torch.int32, device=device)
        self._slots = PenaltySlots(max_seqs, max_rows)
        self._encoder = Encoder(self._layout, vocab_size)
        self._launch = launch

    @property
    def num_ints(self) -> int:
        """Of its block of a step's input."""
        return self._layout.num_ints

    @property
    def outputs(self) -> Tensor:
        """What a step has sampled, packed: int32, on the device."""
        return self._outputs.packed

    @property
    def token_ids(self) -> Tensor:
        """int32 `(max_rows,)` on the device: the ids that the last step has sampled."""
        return self.state.sampled

    def encode(self, rows: Sequence[SamplingRow], block: NDArray[np.int32], num_rows: int) -> None:
        """Fills the block of a step of `num_rows` rows of logits; those beyond `rows` are idle."""
        changes = self._slots.update(rows)
        for slot, history in changes.fills:
            self._queue_fill(slot, history.counts)
        more = self._encoder.encode(rows, changes, block, num_rows)
        if more is not None:
            self._launch(partial(_copy, self._more_entries, self._stage(more)))

    def sample(self, logits: Tensor, block: Tensor) -> None:
        """Samples a token for each row of `logits (R, vocab_size)`. Fit for a graph."""
        inputs = SamplingInputs.of(block, self._layout, self._more_entries)
        sample(logits, inputs, self.state, self._scratch, self._outputs)

    def decode(self, packed: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """The tokens of `rows`, of a copy of `outputs` on the host."""
        return outputs.decode(packed, rows, self.vocab_size)

    def _queue_fill(self, slot: int, counts: TokenCounts) -> None:
        """Copies `counts`, which change later, now."""
        values = SEEN + ONE_OUTPUT * counts.num_output
        packed = self._stage(np.stack((counts.ids, values)))
        self._launch(partial(_fill, self.state.counts[slot], packed))

    def _stage(self, values: NDArray[np.signedinteger]) -> Tensor:
        """A copy that the device can read while the host goes on."""
        source = torch.from_numpy(values)
        return source.pin_memory() if self.state.counts.is_cuda else source


def _copy(to: Tensor, source: Tensor) -> None:
    to[:, : source.shape[1]].copy_(source, non_blocking=True)


def _fill(counts: Tensor, packed: Tensor) -> None:
    ids, values = packed.to(counts.device, non_blocking=True)
    counts.zero_()
    counts[ids] = values.int()
