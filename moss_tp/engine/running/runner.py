"""The protocol of a rank's side of a step. `ModelRunner` is the CPU's, `GraphRunner` the GPU's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from moss_tp.config import ModelConfig
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling.row import SampledToken, SamplingRow


class PendingStep(Protocol):
    """A step that has been launched. One thread reads it; any other may `peek`."""

    def is_done(self) -> bool:
        """Never blocks. Raises RuntimeError where the device has failed."""
        ...

    def peek(self) -> bool:
        """As `is_done`, and notes nothing."""
        ...

    def tokens(self) -> list[SampledToken]:
        """Once it is done: the sampled tokens on rank 0, [] elsewhere.

        Raises StepMemoryError if the step did not fit into the device's memory."""
        ...


@dataclass(frozen=True)
class EndedStep:
    """The PendingStep of a runner that computes in `launch`."""

    sampled: list[SampledToken]

    def is_done(self) -> bool:
        return True

    def peek(self) -> bool:
        return True

    def tokens(self) -> list[SampledToken]:
        return self.sampled


class Runner(Protocol):
    @property
    def group(self) -> TPGroup: ...

    @property
    def config(self) -> ModelConfig: ...

    @property
    def cache_dtype(self) -> torch.dtype: ...

    @property
    def max_in_flight(self) -> int:
        """Steps that may be launched before the tokens of the first are read."""
        ...

    @property
    def forward_s(self) -> float:
        """See `Executor.forward_s`."""
        ...

    def prepare(self) -> None:
        """Takes what steps need of the device's memory, where the default KV cache gets the rest.

        On every rank at the same time, and only when all are loaded: it may run steps.
        """
        ...

    def allocate(self, num_blocks: int) -> None:
        """Allocates the KV cache, in place of an earlier one. Every rank must allocate the same
        number of blocks."""
        ...

    def launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> PendingStep:
        """Starts a step; on the CPU it has ended then. `rows`: see `Executor.submit`.

        Raises StepMemoryError if it does not fit into the device's memory.
        """
        ...
