"""A step of the same chunks as the one before it is not put together anew: it must be the same."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings

from moss_tp.engine.scheduling.chunk import Chunk
from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.sequence import Sequence as Seq
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import fake_config
from tests.moss_tp.engine.stepping.runs import Plan, Run, device_engine, schedules, some_plans

REPEATS = Scheduler._repeats
Repeats = Callable[[Scheduler, Sequence[Chunk]], bool]


def checked(repeats: Repeats, seen: list[bool]) -> Repeats:
    """`repeats`, compared with the chunks that are made anew, which changes nothing."""

    def check(self: Scheduler, chunks: Sequence[Chunk]) -> bool:
        seen.append(repeats(self, chunks))
        if seen[-1]:
            num_running = len(self.running)
            decodes, prefills = self._next_chunks(can_admit=True)
            assert len(self.running) == num_running, "a sequence is kept waiting"
            assert [*decodes, *prefills] == list(chunks)
        return seen[-1]

    return check


@settings(max_examples=100, deadline=None)
@given(**schedules)
def test_a_repeated_step_is_the_one_made_anew(
    plans: list[Plan],
    num_blocks: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    num_speculative_tokens: int,
    seed: int | None,
    is_overlapped: bool,
) -> None:
    engine, _ = device_engine(
        num_blocks,
        seed,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        num_speculative_tokens=num_speculative_tokens,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "_repeats", checked(REPEATS, []))
        Run(engine, plans, is_overlapped).run()
    engine.close()


def run_some(repeats: Repeats, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    seen: list[bool] = []
    monkeypatch.setattr(Scheduler, "_repeats", checked(repeats, seen))
    engine, _ = device_engine(num_blocks=14, num_speculative_tokens=0)
    Run(engine, some_plans(), is_overlapped=True).run()
    engine.close()
    return seen


def test_many_steps_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above is of what it says."""
    seen = run_some(REPEATS, monkeypatch)
    assert seen.count(True) > 10
    assert seen.count(False) > 20


def nobody_waits(self: Scheduler, chunks: Sequence[Chunk]) -> bool:
    """A fault: a step is repeated although a sequence could be admitted."""
    return self._is_lasting and self.running == [chunk.seq for chunk in chunks]


def no_end(self: Scheduler, chunks: Sequence[Chunk]) -> bool:
    """A fault: a step is repeated although a sequence is at its end, or has a prompt to go on."""
    return self.running == [chunk.seq for chunk in chunks] and not self.waiting


@pytest.mark.parametrize("fault", [nobody_waits, no_end])
def test_faults_are_noticed(fault: Repeats, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        run_some(fault, monkeypatch)


def test_a_sequence_that_ends_later_is_not_in_a_repeated_step() -> None:
    """The running step has advanced by then: it is asked for what follows it a second time."""
    config = fake_config(device="cuda", max_model_len=32, num_speculative_tokens=0)
    scheduler = Scheduler(config, num_blocks=24)
    seqs = [Seq(name, [1], SamplingParams(max_tokens=9), frozenset()) for name in "abc"]
    for seq in seqs:
        scheduler.add(seq)
    running = scheduler.schedule(may_draft=False)
    assert scheduler.schedule_behind(running) == running
    scheduler.abort(seqs[1])
    assert [chunk.seq for chunk in scheduler.schedule_behind(running)] == [seqs[0], seqs[2]]
