"""A step on its way: its pinned memory, and what of it is still to come."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moss_tp.accelerator.base import Event
from moss_tp.engine.graphs.scores import ScoreSlot
from moss_tp.engine.graphs.step_input import StepInput
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.errors import StepMemoryError
from moss_tp.sampling.row import SampledToken, SamplingRow

# What an event reports: later than its launch, a step fails in torch's allocator only.
_MEMORY_ERRORS = (torch.OutOfMemoryError, StepMemoryError)
# In what the CUDA runtime, Triton (as it loads a kernel) and cuBLAS raise at a launch.
_MEMORY_TEXTS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

Decode = Callable[[Tensor, Sequence[SamplingRow]], list[SampledToken]]


@dataclass(frozen=True)
class StepSlot:
    """Pinned memory of one step; free again once the step's tokens were read."""

    inputs: Tensor
    outputs: Tensor
    step_input: StepInput  # writes to `inputs`
    sampling: NDArray[np.int32]  # the sampler's part of `inputs`
    scores: ScoreSlot


@dataclass(eq=False)
class GraphStep:
    """See `PendingStep`. `rows` are those that were sampled, none on ranks above 0, where a
    step's batch is not `scored` either.

    `note_end` is called once, when it is known that the step has ended, `note_read` once its slot
    is free.
    """

    event: Event
    slot: StepSlot
    rows: Sequence[SamplingRow]
    decode: Decode
    note_end: Callable[["GraphStep"], None]
    note_read: Callable[[], None]
    scored: Batch | None = None
    launched_at: float = field(default_factory=time.perf_counter)
    _has_ended: bool = False
    _memory_error: str | None = None
    _tokens: list[SampledToken] | None = None

    def is_done(self) -> bool:
        if not self._has_ended:
            try:
                has_ended = self.event.is_done()
            except _MEMORY_ERRORS as error:
                # Not chained: the error's frames would keep the step's tensors.
                self._memory_error, has_ended = first_line(error), True
            if has_ended:
                self._has_ended = True
                self.note_end(self)
        return self._has_ended

    def peek(self) -> bool:
        """See `PendingStep`."""
        return self._has_ended or self.event.is_done()

    def tokens(self) -> list[SampledToken]:
        if not self._has_ended:
            raise RuntimeError("the step has not ended")
        if self._tokens is None:
            failed = self._memory_error is not None
            tokens = [] if failed else self._decode()
            # In this order: a Ctrl-C between the two would leave the slot taken for good.
            self.note_read()
            self._tokens = tokens
        if self._memory_error is not None:
            raise StepMemoryError(self._memory_error)
        return self._tokens

    def _decode(self) -> list[SampledToken]:
        tokens = self.decode(self.slot.outputs, self.rows) if self.rows else []
        return tokens if self.scored is None else tokens + self.slot.scores.decode(self.scored)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a launch found too little memory on the device. A failed allocation leaves the device
    as it was, so that a smaller step may follow."""
    if isinstance(error, _MEMORY_ERRORS):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_TEXTS)


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
