"""Faults of scheduling one step behind are noticed by what `test_one_behind` compares."""

from collections.abc import Callable, Sequence

import pytest

from moss_tp.engine.scheduling.chunk import Chunk
from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.sequence import Sequence as Seq
from moss_tp.sampling.row import SampledToken
from tests.moss_tp.engine.stepping.test_one_behind import (
    alone,
    check_fake,
    device_engine,
    run_some,
    some_plans,
)


def first_row(self: Seq, row: int, max_model_len: int) -> None:
    """A fault: every pending token is the first of its step."""
    EXPECT(self, 0, max_model_len)


def uncounted(self: Seq, row: int, max_model_len: int) -> None:
    """A fault: the sequence does not end with the pending token."""
    EXPECT(self, row, max_model_len)
    self.is_ending = False


def kept_forever(self: Seq, token: SampledToken, max_model_len: int) -> None:
    """A fault: a pending token stays, and the sampled one comes behind it."""
    self.is_pending = self.is_ending = False
    APPEND(self, token, max_model_len)


def advanced_for_ever(self: Scheduler, chunks: Sequence[Chunk]) -> None:
    """A fault: what a running step computes counts as computed before its ids are known."""
    ADVANCE(self, chunks)
    for chunk in chunks:
        if chunk.seq.finish_reason is None:
            chunk.seq.num_computed += chunk.is_sampled
            self.block_manager.commit(chunk.seq)
            chunk.seq.num_computed -= chunk.is_sampled


def void_rows_count(self: Scheduler, chunks: Sequence[Chunk], sampled: Sequence[object]) -> object:
    """A fault: what a step computed for a sequence that has ended is committed."""
    for chunk in chunks:
        seq = chunk.seq
        if seq.finish_reason is not None and not seq.block_table:
            seq.finish_reason = None
    return UPDATE(self, chunks, sampled)  # type: ignore[arg-type]


EXPECT, APPEND = Seq.expect, Seq.append
ADVANCE, UPDATE = Scheduler._advance, Scheduler.update


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (Seq, "expect", first_row),
        (Seq, "expect", uncounted),
        (Seq, "append", kept_forever),
        (Scheduler, "_advance", advanced_for_ever),
        (Scheduler, "update", void_rows_count),
    ],
)
def test_faults_are_noticed(
    where: type, name: str, fault: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for plan in some_plans():
        alone(plan.prompt, plan.params)
    monkeypatch.setattr(where, name, fault)
    engine, fake = device_engine(num_blocks=14, num_speculative_tokens=0)
    with pytest.raises((AssertionError, LookupError, ValueError)):
        run_some(engine).check()
        check_fake(engine, fake)
