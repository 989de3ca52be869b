"""A fake runner and a fake TP group that record the calls of a driver or a worker."""

import threading
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from moss_tp.engine.running.model_runner import ModelRunner
from moss_tp.engine.running.runner import EndedStep, PendingStep
from moss_tp.engine.scheduling.batch import Batch, Ints
from moss_tp.sampling.row import SampledToken, SamplingRow


def a_batch() -> Batch:
    """One chunk of one token, in one block."""
    return Batch(np.array([1, 1, 1, 1, 1, 7, 0]))


class FakeGroup:
    """`sent` are the control messages of rank 0; `inbox` is what a worker receives."""

    def __init__(self, size: int, inbox: Sequence[Ints] = ()) -> None:
        self.size = size
        self.sent: list[list[int]] = []
        self.error: Exception | None = None
        self.num_closed = 0
        self.num_barriers = 0
        self._inbox = list(inbox)

    def broadcast_ints(self, message: Ints | None) -> Ints:
        if message is None:
            return self._inbox.pop(0)
        if self.error is not None:
            raise self.error
        self.sent.append(message.tolist())
        return message

    def barrier(self) -> None:
        self.num_barriers += 1

    def close(self) -> None:
        self.num_closed += 1


class FakeRunner:
    """`step` runs in each step; `batches` are the ints of all steps, `num_blocks` as allocated."""

    max_in_flight = 1

    def __init__(self, group: FakeGroup, step: Callable[[], None] = lambda: None) -> None:
        self.group = group
        self.step = step
        self.forward_s = 1.5
        self.batches: list[list[int]] = []
        self.num_blocks = 0
        self.is_in_step = threading.Event()

    def allocate(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks

    def launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> PendingStep:
        return EndedStep(self.run(batch, rows))

    def run(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        self.batches.append(batch.ints.tolist())
        self.is_in_step.set()
        self.step()
        return [SampledToken(5, -0.5)]

    @property
    def as_runner(self) -> ModelRunner:
        return cast(ModelRunner, self)


class PendingFake:
    """A step on a device: `end` or `break_device` decides how it ends, `error` what reading it
    raises."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._is_done = False
        self._is_broken = False

    def end(self) -> None:
        self._is_done = True

    def break_device(self) -> None:
        self._is_broken = True

    def is_done(self) -> bool:
        if self._is_broken:
            raise RuntimeError("an illegal memory access")
        return self._is_done

    def peek(self) -> bool:
        return self.is_done()

    def tokens(self) -> list[SampledToken]:
        if self.error is not None:
            raise self.error
        return [SampledToken(6)]


class DeviceRunner(FakeRunner):
    """Two steps in flight; `pending` are those that were launched."""

    max_in_flight = 2

    def __init__(self, group: FakeGroup, step: Callable[[], None] = lambda: None) -> None:
        super().__init__(group, step)
        self.pending: list[PendingFake] = []

    def launch(self, batch: Batch, rows: Sequence[SamplingRow]) -> PendingStep:
        self.run(batch, rows)
        self.pending.append(PendingFake())
        return self.pending[-1]
