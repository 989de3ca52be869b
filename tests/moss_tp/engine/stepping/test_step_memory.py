"""Steps that do not fit into the memory: no token is lost, no engine, at most one request."""

import asyncio
import random
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.adaptive_limits import GOOD_STEPS, AdaptiveLimits
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine.scheduling.scheduler import Scheduler
from moss_tp.engine.scheduling.sequence import Sequence as Seq
from moss_tp.errors import RequestMemoryError
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.device_fake import DeviceFake, Refuses
from tests.moss_tp.engine.stepping.runs import (
    BLOCK_SIZE,
    Plan,
    Run,
    alone,
    check_fake,
    device_engine,
    schedules,
    some_plans,
)

POINTS = ["launch", "run"]


def engine_that_refuses(
    refuses: Refuses,
    where: str,
    seed: int | None = None,
    num_blocks: int = 24,
    max_in_flight: int = 2,
    **changes: object,
) -> tuple[LLMEngine, DeviceFake]:
    name = "refuses_launch" if where == "launch" else "refuses"
    fake = DeviceFake(num_blocks, BLOCK_SIZE, **{name: refuses})  # type: ignore[arg-type]
    fake.max_in_flight = max_in_flight
    return device_engine(num_blocks, seed, fake, **changes)


@pytest.mark.parametrize("where", POINTS)
@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_any_one_step_may_not_fit(where: str, max_in_flight: int) -> None:
    plans = some_plans()[::3]
    number, is_reached = 0, True
    while is_reached:
        refuses = partial(is_number, number)
        engine, fake = engine_that_refuses(refuses, where, max_in_flight=max_in_flight)
        run = Run(engine, plans, is_overlapped=number % 2 == 0)
        run.run()
        is_reached = fake.num_refused == 1
        assert not run.failed
        run.check()
        check_fake(engine, fake)
        number += 1
    assert number > 20


def is_number(wanted: int, number: int, batch: Batch) -> bool:
    return number == wanted


@settings(max_examples=60, deadline=None)
@given(
    where=st.sampled_from(POINTS),
    refusals=st.integers(0, 2**32),
    share=st.floats(0, 0.6),
    **schedules,
)
def test_steps_that_do_not_fit_change_no_reply(
    where: str,
    refusals: int,
    share: float,
    plans: list[Plan],
    num_blocks: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    num_speculative_tokens: int,
    seed: int | None,
    is_overlapped: bool,
) -> None:
    """Any step of two tokens or more may fail, at random."""
    chosen = random.Random(refusals)
    engine, fake = engine_that_refuses(
        lambda _, batch: len(batch.token_ids) > 1 and chosen.random() < share,
        where,
        seed,
        num_blocks,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        num_speculative_tokens=num_speculative_tokens,
    )
    run = Run(engine, plans, is_overlapped)
    run.run()
    assert not run.failed
    run.check()
    check_fake(engine, fake)


@pytest.mark.parametrize("where", POINTS)
@pytest.mark.parametrize(
    "refuses",
    [
        lambda _, batch: len(batch.token_ids) > 3,
        lambda _, batch: len(batch.query_lens) > 2,
        lambda _, batch: batch.context_lens.sum() > 40,
    ],
)
def test_a_card_that_is_too_small_serves_smaller_steps(where: str, refuses: Refuses) -> None:
    engine, fake = engine_that_refuses(refuses, where, num_speculative_tokens=3)
    run = Run(engine, some_plans(), is_overlapped=True)
    run.run()
    assert fake.num_refused > 0
    assert not run.failed
    run.check()
    check_fake(engine, fake)


@pytest.mark.parametrize("where", POINTS)
def test_a_request_that_does_not_fit_alone_ends_and_no_other(where: str) -> None:
    engine, fake = engine_that_refuses(lambda _, b: int(b.context_lens.max()) > 12, where)
    run = Run(engine, some_plans(), is_overlapped=True)
    run.run()
    check_fake(engine, fake)
    for (name, told), plan in zip(run.told.items(), run.plans, strict=True):
        whole = alone(plan.prompt, plan.params)
        length = len(plan.prompt) + len(whole.token_ids)
        if plan.leaves is None:
            assert (name in run.failed) == (length > 13), (length, told)
        if name not in run.failed and plan.leaves is None:
            assert told.token_ids == whole.token_ids


async def test_the_reader_of_a_request_that_does_not_fit_gets_its_own_error() -> None:
    engine, _ = engine_that_refuses(lambda _, b: bool((b.context_lens > 9).any()), "run")
    running = AsyncEngine(engine)
    params = SamplingParams(max_tokens=20, ignore_eos=True)

    async def read(request: EngineRequest) -> int:
        return sum([len(delta.token_ids) async for delta in running.generate(request)])

    large = EngineRequest("large", [1, 2, 3], params)
    small = EngineRequest("small", [1, 2], replace(params, max_tokens=5))
    replies = await asyncio.gather(read(large), read(small), return_exceptions=True)
    assert isinstance(replies[0], RequestMemoryError)
    assert replies[1] == 5
    assert running.is_alive
    running.close()


def test_limits_come_back_after_steps_that_fit() -> None:
    limits = AdaptiveLimits(100, 8)
    assert limits.shrink(100, 3)
    assert limits.shrink(10, 3)
    assert (limits.tokens, limits.seqs) == (5, 8)
    assert limits.shrink(3, 3)
    assert (limits.tokens, limits.seqs) == (5, 1)
    assert limits.shrink(3, 1)
    assert not limits.shrink(1, 1)
    sizes = []
    while limits.is_reduced:
        sizes.append((limits.tokens, limits.seqs))
        for _ in range(GOOD_STEPS):
            assert limits.is_reduced
            limits.note_fit()
    assert sizes[:4] == [(1, 1), (2, 2), (4, 4), (8, 8)]
    assert sizes[-1] == (64, 8)
    assert (limits.tokens, limits.seqs) == (100, 8)


def forget_to_roll_back(self: Scheduler, chunks: object) -> None:
    """A fault: the next step goes on after tokens that were not computed."""
    self._limits.shrink(2, 1)


def forget_the_pending_token(self: Seq) -> None:
    """A fault: an id that was never sampled stays."""
    self.is_pending = self.is_ending = False


@pytest.mark.parametrize("where", POINTS)
@pytest.mark.parametrize("fault", [forget_to_roll_back, forget_the_pending_token])
def test_faults_are_noticed(where: str, fault: object, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = some_plans()
    for plan in plans:
        alone(plan.prompt, plan.params)
    if fault is forget_to_roll_back:
        monkeypatch.setattr(Scheduler, "roll_back", fault)
    else:
        monkeypatch.setattr(Seq, "withdraw", fault)
    engine, fake = engine_that_refuses(lambda n, _: n % 7 == 3, where)
    run = Run(engine, plans, is_overlapped=True)
    with pytest.raises((AssertionError, LookupError)):
        run.run()
        run.check()
        check_fake(engine, fake)


@pytest.mark.parametrize("where", POINTS)
def test_a_step_that_did_not_fit_is_no_step(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the count nor for what admission learns; a single token is tried twice."""
    engine, fake = engine_that_refuses(partial(is_number, 3), where)
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    engine.add_request(EngineRequest("a", [1, 2, 3], params))
    noted: list[object] = []
    monkeypatch.setattr(engine.admission.speeds, "note_step", lambda *args: noted.append(args))
    while engine.has_work:
        engine.step()
    assert engine.take_failures() == []
    assert fake.num_refused == 1
    assert engine.num_steps == len(noted) == 20
