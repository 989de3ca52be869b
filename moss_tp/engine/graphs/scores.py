"""Logprobs of prompts in a step on a device: their rows copied in, what is found copied out.

Only a step that scores has this; it runs without a graph.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from moss_tp.accelerator.base import Accelerator, Queue
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.kernels.device_plan import StepLimits
from moss_tp.model import MossForCausalLM
from moss_tp.sampling import scores
from moss_tp.sampling.row import SampledToken


@dataclass(frozen=True)
class ScoreSlot:
    """Pinned memory of one step, as StepSlot's."""

    inputs: Tensor  # (2, max_rows) int32: rows and targets
    outputs: Tensor  # (max_rows, packed_width) int32

    def fill(self, batch: Batch) -> None:
        num_rows = len(batch.scored_rows)
        inputs = self.inputs.numpy()
        inputs[0, :num_rows], inputs[1, :num_rows] = batch.scored_rows, batch.targets

    def decode(self, batch: Batch) -> list[SampledToken]:
        """Once the step has ended."""
        return scores.decode(self.outputs[: len(batch.scored_rows)], batch.targets)


class StepScores:
    """`compute` is the same on every rank; `outputs` are filled on rank 0."""

    def __init__(
        self, model: MossForCausalLM, limits: StepLimits, vocab_size: int, gpu: Accelerator
    ) -> None:
        self._model = model
        self._gpu = gpu
        self._max_head_rows = limits.max_logit_rows  # memory is reserved for so many
        self._sizes = (2, limits.max_rows), (limits.max_rows, scores.packed_width(vocab_size))
        self._inputs, self._outputs = (
            torch.zeros(size, dtype=torch.int32, device=gpu.device) for size in self._sizes
        )

    def make_slot(self) -> ScoreSlot:
        return ScoreSlot(*(self._gpu.pinned(size, torch.int32) for size in self._sizes))

    def compute(self, x: Tensor, num_rows: int) -> None:
        """Scores the first `num_rows` that were copied in, of the step's hidden states `x`."""
        rows, targets = self._inputs[:, :num_rows].unbind()
        head = partial(self._model.head, x)
        scores.score(head, rows, targets, self._outputs[:num_rows], self._max_head_rows)

    def copy_in(self, queue: Queue, slot: ScoreSlot) -> None:
        queue.copy(self._inputs, slot.inputs)

    def copy_out(self, queue: Queue, slot: ScoreSlot) -> None:
        queue.copy(slot.outputs, self._outputs)
