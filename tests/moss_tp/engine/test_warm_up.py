"""The steps of a warm-up: growing, valid, none smaller than a real one, within the budget."""

from collections.abc import Callable, Sequence

import pytest

from moss_tp.engine.build import build_engine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.running.batch import Batch
from moss_tp.engine.running.local_executor import LocalExecutor
from moss_tp.engine.running.step_times import MIN_LIMIT_S, StepSize
from moss_tp.engine.warm_up import BUDGET_S, warm_up
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import SamplingParams


class FakeExecutor:
    """Each step takes `token_s` a token on its clock."""

    num_blocks = 64
    forward_s = 0.0

    def __init__(self, token_s: float) -> None:
        self.token_s = token_s
        self.now = 0.0
        self.batches: list[Batch] = []

    def execute(self, batch: Batch, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        assert rows == ()
        self.batches.append(batch)
        self.now += len(batch.token_ids) * self.token_s
        return []

    def watch(self, on_death: Callable[[str], None]) -> None:
        """Nothing dies."""

    def close(self) -> None:
        """Nothing runs."""

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize("tokens", [1024, 700, 64])
@pytest.mark.parametrize("context", [512, 100, 2])
def test_the_last_step_is_as_large_as_any(tokens: int, context: int) -> None:
    config = EngineConfig("m", max_model_len=context, max_num_batched_tokens=tokens)
    executor = FakeExecutor(token_s=0)
    warm_up(executor, config, executor.clock)
    sizes = [StepSize.of(batch) for batch in executor.batches]
    assert sizes[0].tokens == 1
    assert sizes == sorted(sizes, key=lambda size: size.tokens)
    last = executor.batches[-1]
    assert tokens - config.max_num_seqs < len(last.token_ids) <= tokens or context == 2
    assert set(last.context_lens.tolist()) == {context}
    for batch in executor.batches:
        assert batch.positions.min() >= 0
        assert batch.slots(config.block_size).max() < -(-context // 16) * 16
        assert len(batch.logit_rows) == batch.num_logits.sum() <= len(batch.token_ids)


@pytest.mark.parametrize(("token_s", "num_steps"), [(10, 1), (1.1, 1), (0.3, 2), (0.02, 4)])
def test_a_slow_model_is_not_kept_from_serving(token_s: float, num_steps: int) -> None:
    executor = FakeExecutor(token_s)
    warm_up(executor, EngineConfig("m", max_model_len=512), executor.clock)
    assert len(executor.batches) == num_steps
    assert executor.now <= max(BUDGET_S, token_s)


def test_it_changes_no_reply_and_teaches_what_steps_take(tiny_model: str) -> None:
    config = EngineConfig(tiny_model, dtype="float32")
    replies = []
    for is_warm in (False, True):
        engine = build_engine(config)
        assert isinstance(engine.executor, LocalExecutor)
        if is_warm:
            warm_up(engine.executor, engine.config)
            times = engine.executor._driver._watch._times
            assert times.limit_s(StepSize(512, 512 * 32, 64)) < config.step_timeout_s
            assert times.limit_s(StepSize(1, 1, 1)) == MIN_LIMIT_S
        engine.add_request(EngineRequest("a", [1, 2, 3], SamplingParams(seed=1, max_tokens=20)))
        ids: list[int] = []
        while engine.has_work:
            ids += [id for _, delta in engine.step() for id in delta.token_ids]
        replies.append(ids)
        engine.check_integrity()
        engine.close()
    assert replies[0] == replies[1]
