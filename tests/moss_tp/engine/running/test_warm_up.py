"""The steps of a warm-up: growing, valid, none smaller than a real one, within the budget."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.build import build_engine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.local_executor import LocalExecutor
from moss_tp.engine.running.step import Step
from moss_tp.engine.running.step_times import StepSize
from moss_tp.engine.running.steps import LazyStep
from moss_tp.engine.running.warm_up import BUDGET_S, warm_up
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling_params import SamplingParams


class FakeExecutor:
    """Each step takes `token_s` a token on its clock."""

    forward_s = 0.0
    late_step: str | None = None
    max_in_flight = 1

    def __init__(self, token_s: float, num_blocks: int = 256) -> None:
        self.token_s = token_s
        self.num_blocks = num_blocks
        self.now = 0.0
        self.batches: list[Batch] = []

    def submit(self, batch: Batch, rows: Sequence[SamplingRow]) -> Step:
        assert rows == ()
        self.batches.append(batch)
        self.now += len(batch.token_ids) * self.token_s
        return LazyStep(list)

    def watch(self, on_death: Callable[[str], None]) -> None:
        """Nothing dies."""

    def close(self) -> None:
        """Nothing runs."""

    def clock(self) -> float:
        return self.now


@given(
    tokens=st.integers(64, 3000),
    context=st.integers(2, 3000),
    block_size=st.sampled_from([1, 16, 100]),
    num_blocks=st.integers(0, 1000),
)
def test_every_step_is_one_that_requests_could_make(
    tokens: int, context: int, block_size: int, num_blocks: int
) -> None:
    config = EngineConfig(
        "m", max_model_len=context, max_num_batched_tokens=tokens, block_size=block_size
    )
    executor = FakeExecutor(token_s=0, num_blocks=max(num_blocks, -(-context // block_size)))
    warm_up(executor, config, executor.clock)
    for batch in executor.batches:
        assert len(batch.query_lens) <= config.max_num_seqs
        assert len(batch.token_ids) <= tokens
        assert batch.positions.min() >= 0
        assert batch.context_lens.max() <= context
        slots = batch.slots(block_size)
        assert len(set(slots.tolist())) == len(slots)
        assert slots.max() < executor.num_blocks * block_size
        assert len(batch.logit_rows) == batch.num_logits.sum() <= len(batch.token_ids)


def test_the_last_step_is_about_as_large_as_any() -> None:
    executor = FakeExecutor(token_s=0, num_blocks=8 * 32)
    config = EngineConfig("m", max_model_len=512, max_num_batched_tokens=1024)
    warm_up(executor, config, executor.clock)
    size = StepSize.of(executor.batches[-1])
    assert (size.tokens, size.attended, size.logits) == (1024, 1024 * 512, 8 * 8)


@pytest.mark.parametrize("num_full", [2, 3, 5, 8, 11, 40, 64])
def test_there_is_a_step_of_each_kind(num_full: int) -> None:
    """However many sequences of the full length the cache holds."""
    executor = FakeExecutor(token_s=0, num_blocks=num_full * 32)
    config = EngineConfig("m", max_model_len=512, max_num_batched_tokens=1024)
    warm_up(executor, config, executor.clock)
    expected = {StepSize(n, n, n, is_decode=True).kind for n in range(1, config.max_num_seqs + 1)}
    expected |= {StepSize(n, n, n, is_decode=False).kind for n in range(2, 1025)}
    sizes = [StepSize.of(batch) for batch in executor.batches]
    assert {size.kind for size in sizes} == expected
    assert len(sizes) == len(expected)


@pytest.mark.parametrize(("token_s", "num_steps"), [(10, 1), (0.6, 2), (0.3, 3), (0.02, 7)])
def test_a_slow_model_is_not_kept_from_serving(token_s: float, num_steps: int) -> None:
    executor = FakeExecutor(token_s)
    warm_up(executor, EngineConfig("m", max_model_len=512), executor.clock)
    assert len(executor.batches) == num_steps
    assert executor.now <= max(BUDGET_S, token_s)


def test_it_changes_no_reply_and_teaches_what_steps_take(tiny_model: str) -> None:
    config = EngineConfig(tiny_model, dtype="float32")
    replies = []
    for is_warm in (False, True):
        engine = build_engine(config, is_warm=is_warm)
        assert isinstance(engine.executor, LocalExecutor)
        if is_warm:
            times = engine.executor._driver._watch._times
            for num_tokens in (2, 30, 512):
                size = StepSize(num_tokens, num_tokens * 32, 1, is_decode=False)
                assert times.limit_s(size) < config.step_limit_s
            assert times.limit_s(StepSize(1, 1, 1, is_decode=True)) < config.step_limit_s
        engine.add_request(EngineRequest("a", [1, 2, 3], SamplingParams(seed=1, max_tokens=20)))
        ids: list[int] = []
        while engine.has_work:
            ids += [id for _, delta in engine.step() for id in delta.token_ids]
        replies.append(ids)
        engine.check_integrity()
        engine.close()
    assert replies[0] == replies[1]
