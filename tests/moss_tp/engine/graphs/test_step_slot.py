"""A step on its way: it ends once, is read once, and says so when memory was short."""

import numpy as np
import pytest
import torch

from moss_tp.accelerator.base import Event
from moss_tp.engine.graphs.layout import StepLayout
from moss_tp.engine.graphs.limits import step_limits
from moss_tp.engine.graphs.scores import ScoreSlot
from moss_tp.engine.graphs.step_input import StepInput
from moss_tp.engine.graphs.step_slot import GraphStep, StepSlot, is_out_of_memory
from moss_tp.engine.graphs.wait import wait_for
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import StepMemoryError
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams

ROW = SamplingRow(SamplingParams(), 0, 0)


class FakeEvent:
    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)

    def is_done(self) -> bool:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def make_step(event: Event, notes: list[str]) -> GraphStep:
    layout = StepLayout.of(step_limits(EngineConfig("m", max_model_len=64)), 16, 8)
    block = np.zeros(layout.num_ints, np.int32)
    scores = ScoreSlot(torch.zeros(2, 1), torch.zeros(1, 3))
    step_input = StepInput(block, layout, 16, 0)
    slot = StepSlot(torch.zeros(1), torch.tensor([7]), step_input, block[:0], scores)
    return GraphStep(
        event=event,
        slot=slot,
        rows=[ROW],
        decode=lambda outputs, rows: [SampledToken(int(outputs[0])) for _ in rows],
        note_end=lambda step: notes.append("end"),
        note_read=lambda: notes.append("read"),
    )


def test_it_ends_once_and_is_read_once() -> None:
    notes: list[str] = []
    step = make_step(FakeEvent(False, True), notes)
    assert not step.is_done()
    with pytest.raises(RuntimeError, match="has not ended"):
        step.tokens()
    assert step.is_done()
    assert step.is_done()
    assert step.tokens() == step.tokens() == [SampledToken(7)]
    assert notes == ["end", "read"]


def test_memory_that_is_short_costs_the_step() -> None:
    notes: list[str] = []
    step = make_step(FakeEvent(torch.OutOfMemoryError("no memory\nand a long table")), notes)
    assert step.is_done()
    for _ in range(2):
        with pytest.raises(StepMemoryError, match=r"^no memory$"):
            step.tokens()
    assert notes == ["end", "read"]


def test_another_failure_is_the_callers() -> None:
    step = make_step(FakeEvent(RuntimeError("the device has failed")), [])
    with pytest.raises(RuntimeError, match="the device has failed"):
        step.is_done()


def test_waiting_ends() -> None:
    wait_for(FakeEvent(False, False, True).is_done, 60)
    with pytest.raises(RuntimeError, match="has not ended a step"):
        wait_for(lambda: False, 0.01)


@pytest.mark.parametrize(
    ("error", "is_short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."), True),
        (StepMemoryError("the workspace is full"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_a_launch_raises_when_memory_is_short(error: Exception, is_short: bool) -> None:
    assert is_out_of_memory(error) == is_short


def test_another_thread_peeks_and_notes_nothing() -> None:
    notes: list[str] = []
    step = make_step(FakeEvent(False, True, True), notes)
    assert [step.peek(), step.peek()] == [False, True]
    assert notes == []
    assert step.is_done()
    assert step.peek(), "the event is not asked again"
    assert notes == ["end"]


def test_a_ctrl_c_before_the_slot_is_free_leaves_it_to_the_next_read() -> None:
    notes: list[str] = []
    step = make_step(FakeEvent(True), notes)
    note_read = step.note_read

    def interrupt() -> None:
        raise KeyboardInterrupt

    assert step.is_done()
    step.note_read = interrupt
    with pytest.raises(KeyboardInterrupt):
        step.tokens()
    step.note_read = note_read
    assert step.tokens() == [SampledToken(7)]
    assert notes == ["end", "read"]
