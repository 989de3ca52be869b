"""A paged fake of a device that has two steps queued, and runs them as late as it can.

A step runs when its result is waited for. So the host schedules the next one without the ids of
this one, which the device fills in by itself: it keeps what the step before it sampled. Steps are
encoded when they are launched. Whoever reads a step's result out of order fails.
"""

from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from moss_tp.engine.scheduling.batch import Batch, Ints
from moss_tp.errors import StepMemoryError
from moss_tp.sampling.row import SampledToken, SamplingRow
from tests.moss_tp.engine.scheduling.paged_fake import Model
from tests.moss_tp.engine.scheduling.sampling_fake import SamplingFake

# The number of the step from 0, and its batch: whether it does not fit.
Refuses = Callable[[int, Batch], bool]


@dataclass(eq=False)
class QueuedStep:
    device: "DeviceFake"
    batch: Batch
    rows: tuple[SamplingRow, ...]
    refusal: StepMemoryError | None = None
    is_void: bool = False  # behind a step that was not launched

    def result(self) -> list[SampledToken]:
        if self.refusal is not None:
            self.device.refused = None
            raise self.refusal
        assert self.device.queue[0] is self, "results are read in order"
        self.device.queue.popleft()
        if self.is_void:
            return self.device.scribble(self.batch)
        return self.device.execute(self.batch, self.rows)


class DeviceFake(SamplingFake):
    """`refuses_launch` says which steps do not fit when they are launched, `refuses` which when
    they run: those have written part of their K and V."""

    max_in_flight = 2

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        model: Model | None = None,
        refuses_launch: Refuses = lambda number, batch: False,
        refuses: Refuses = lambda number, batch: False,
    ) -> None:
        super().__init__(num_blocks, block_size)
        self.queue: deque[QueuedStep] = deque()
        self.refused: QueuedStep | None = None  # the last one, until its result is read
        self.max_queued = 0
        self._greedy = model  # None: samples as the rows say
        self._refuses_launch = refuses_launch
        self._refuses = refuses
        self._sampled: list[int] = []  # by the last step that ran
        self.num_launched = 0
        self.num_run = 0
        self.num_refused = 0
        self.num_pending_ids = 0

    def submit(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> QueuedStep:
        copied = Batch(batch.ints.copy())
        assert all(row.position < row.params.max_tokens for row in rows), "beyond its length"
        number, self.num_launched = self.num_launched, self.num_launched + 1
        if self._refuses_launch(number, copied):
            self.num_refused += 1
            self.refused = QueuedStep(self, copied, (), StepMemoryError("at its launch"))
            return self.refused
        own_rows = tuple(deepcopy(row) for row in rows)
        step = QueuedStep(self, copied, own_rows, is_void=self.refused is not None)
        self.queue.append(step)
        self.max_queued = max(self.max_queued, len(self.queue))
        assert len(self.queue) <= self.max_in_flight
        return step

    def execute(self, batch: Batch, rows: Sequence[SamplingRow] = ()) -> list[SampledToken]:
        number, self.num_run = self.num_run, self.num_run + 1
        self._fill_in(batch.token_ids)
        last_ids = batch.token_ids[batch.logit_rows].tolist()
        counted = [_with_pending(row, last) for row, last in zip(rows, last_ids, strict=True)]
        tokens = super().execute(batch, counted)
        self._sampled = [token.token_id for token in tokens[: len(rows)]]
        if self._refuses(number, batch):
            self.num_refused += 1
            raise StepMemoryError("while it ran")
        return tokens

    def scribble(self, batch: Batch) -> list[SampledToken]:
        """A step that reads what was never written, and writes the like."""
        self._fill_in(batch.token_ids)
        for slot in batch.slots(self.block_size).tolist():
            self._slots[divmod(slot, self.block_size)] = (-1, -1)
        self._sampled = [0] * int(batch.num_logits.sum())
        return [SampledToken(0) for _ in (*self._sampled, *batch.scored_rows)]

    def _sample(
        self, histories: Sequence[Sequence[int]], rows: Sequence[SamplingRow]
    ) -> list[SampledToken]:
        if self._greedy is None:
            return super()._sample(histories, rows)
        return [SampledToken(self._greedy(history)) for history in histories]

    def _fill_in(self, token_ids: Ints) -> None:
        """A step behind one that did not run finds whatever ids are there."""
        for index in np.flatnonzero(token_ids < 0).tolist():
            row = -1 - int(token_ids[index])
            token_ids[index] = self._sampled[row] if row < len(self._sampled) else 0
            self.num_pending_ids += 1


def _with_pending(row: SamplingRow, last_id: int) -> SamplingRow:
    """A row whose pending token counts: it is one short of its position, see `SamplingRow`."""
    if row.history is None or row.history.num_output + len(row.drafted) == row.position:
        return row
    assert row.history.num_output + len(row.drafted) == row.position - 1
    return replace(row, drafted=(*row.drafted, last_id))
