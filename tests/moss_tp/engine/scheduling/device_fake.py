"""A paged fake of a device that has two steps queued, and runs them as late as it can.

A step runs when its result is waited for. So the host schedules the next one without the ids of
this one, which the device fills in by itself: it keeps what the step before it sampled. Steps are
encoded when they are launched. Whoever reads a step's result out of order fails.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moss_tp.engine.scheduling.batch import Batch
from moss_tp.errors import StepMemoryError
from moss_tp.sampling.row import SampledToken, SamplingRow
from tests.moss_tp.engine.scheduling.paged_fake import Model, next_token
from tests.moss_tp.engine.scheduling.sampling_fake import SamplingFake, logits_of

# The number of the step from 0, and its batch: whether it does not fit.
Refuses = Callable[[int, Batch], bool]


@dataclass(eq=False)
class QueuedStep:
    device: "DeviceFake"
    batch: Batch
    rows: tuple[SamplingRow, ...]
    refusal: StepMemoryError | None = None

    def result(self) -> list[SampledToken]:
        if self.refusal is None:
            assert self.device.queue[0] is self, "results are read in order"
            self.device.queue.popleft()
            return self.device.execute(self.batch, self.rows)
        raise self.refusal


class DeviceFake(SamplingFake):
    """`refuses_launch` says which steps do not fit when they are launched, `refuses` which when
    they run: those have written part of their K and V."""

    max_in_flight = 2

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        model: Model | None = next_token,
        refuses_launch: Refuses = lambda number, batch: False,
        refuses: Refuses = lambda number, batch: False,
    ) -> None:
        super().__init__(num_blocks, block_size)
        self.queue: deque[QueuedStep] = deque()
        self.max_queued = 0
        self._chosen = model  # None: sample as the rows say
        self._refuses_launch = refuses_launch
        self._refuses = refuses
        self._sampled: list[int] = []  # by the last step that ran
        self.num_launched = 0
        self.num_run = 0
        self.num_refused = 0
        self.num_pending_ids = 0

    def submit(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> QueuedStep:
        copied = Batch(batch.ints.copy())
        number, self.num_launched = self.num_launched, self.num_launched + 1
        if self._refuses_launch(number, copied):
            self.num_refused += 1
            return QueuedStep(self, copied, (), StepMemoryError("at its launch"))
        step = QueuedStep(self, copied, tuple(map(frozen, rows)))
        self.queue.append(step)
        self.max_queued = max(self.max_queued, len(self.queue))
        assert len(self.queue) <= self.max_in_flight
        return step

    def execute(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> list[SampledToken]:
        number, self.num_run = self.num_run, self.num_run + 1
        pending = np.flatnonzero(batch.token_ids < 0)
        self.num_pending_ids += len(pending)
        for index in pending:
            batch.token_ids[index] = self._fill_in(int(batch.token_ids[index]))
        # The pending ids of the sampled rows, for their penalties.
        tokens = super().execute(batch, rows)
        self._sampled = [token.token_id for token in tokens]
        if self._refuses(number, batch):
            self.num_refused += 1
            raise StepMemoryError("while it ran")
        return tokens

    def _fill_in(self, pending: int) -> int:
        """A step behind one that did not run finds whatever ids are there."""
        row = -1 - pending
        return self._sampled[row] if row < len(self._sampled) else 0
