"""Plans of requests, and their runs on an engine whose device has two steps queued."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.pace import Pace
from moss_tp.errors import RequestMemoryError
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.device_fake import DeviceFake
from tests.moss_tp.engine.scheduling.paged_fake import FAKE_IDS, expected_scores, fake_config
from tests.moss_tp.engine.scheduling.sampling_fake import (
    PiecesTokenizer,
    Told,
    sampling_engine,
    told_by,
)

MAX_MODEL_LEN = 32
BLOCK_SIZE = 4


@dataclass(frozen=True)
class Plan:
    prompt: tuple[int, ...]
    params: SamplingParams
    num_told: int  # tokens that it came with
    priority: int
    arrives: int
    leaves: int | None

    def request(self, name: str) -> EngineRequest:
        told = alone(self.prompt, self.params).token_ids[: self.num_told]
        return EngineRequest(
            name, list(self.prompt), self.params, priority=self.priority, output_ids=told
        )


def make_params(
    max_tokens: int, min_tokens: int, prompt_logprobs: int | None, **others: Any
) -> SamplingParams:
    """Of no token only where logprobs of the prompt are wanted."""
    if prompt_logprobs is None:
        max_tokens = max(1, max_tokens)
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=min(min_tokens, max_tokens),
        prompt_logprobs=prompt_logprobs,
        **others,
    )


params = st.builds(
    make_params,
    temperature=st.sampled_from([0, 1]),
    repetition_penalty=st.sampled_from([1, 1.3]),
    frequency_penalty=st.sampled_from([0, 1.5]),
    max_tokens=st.integers(0, 24),
    min_tokens=st.sampled_from([0, 0, 1]),
    seed=st.integers(0, 3),
    stop=st.sampled_from([(), (), ("ab",), ("你",), ("b你a",)]),
    stop_token_ids=st.sampled_from([(), (5, 6, 7)]),
    ignore_eos=st.booleans(),
    logprobs=st.sampled_from([None, 1]),
    prompt_logprobs=st.sampled_from([None, None, 0, 2]),
)
plans = st.builds(
    Plan,
    # Few ids, so that prompts share their blocks and drafts are found.
    prompt=st.lists(st.integers(0, 1), min_size=1, max_size=MAX_MODEL_LEN - 1).map(tuple),
    params=params,
    num_told=st.sampled_from([0, 0, 3]),
    priority=st.integers(-1, 1),
    arrives=st.integers(0, 15),
    leaves=st.none() | st.none() | st.integers(0, 15),
)


@lru_cache(maxsize=4096)
def alone(prompt: tuple[int, ...], params: SamplingParams) -> Told:
    """What a synchronous engine tells without drafts or other requests."""
    engine = sampling_engine(num_speculative_tokens=0)
    (told,) = told_by(engine, EngineRequest("a", list(prompt), params))
    engine.close()
    return told


class RandomPace(Pace):
    """Waits for drafts now and then, for no reason."""

    def __init__(self, seed: int) -> None:
        super().__init__(0.02)
        self._random = random.Random(seed)

    def should_draft(self, num_decodes: int) -> bool:
        return self._random.random() < 0.3


def device_engine(
    num_blocks: int = 24, seed: int | None = None, fake: DeviceFake | None = None, **changes: object
) -> tuple[LLMEngine, DeviceFake]:
    config = fake_config(device="cuda", max_model_len=MAX_MODEL_LEN, **changes)
    fake = fake or DeviceFake(num_blocks, BLOCK_SIZE)
    engine = LLMEngine(config, fake, PiecesTokenizer(), FAKE_IDS)
    if seed is not None:
        engine._stepper._pace = RandomPace(seed)
    return engine, fake


class Run:
    """Plans on an engine; the reader of each reply is `told`."""

    def __init__(self, engine: LLMEngine, plans: Sequence[Plan], is_overlapped: bool) -> None:
        self.engine = engine
        self.plans = plans
        self.is_overlapped = is_overlapped
        self.told = {str(i): Told() for i in range(len(plans))}
        self.failed: set[str] = set()
        self.now = 0

    def run(self) -> None:
        while self.engine.has_work or self.now <= 15:
            for name, plan in zip(self.told, self.plans, strict=True):
                if plan.arrives == self.now:
                    self.engine.add_request(plan.request(name))
                if plan.leaves is not None and plan.arrives + plan.leaves == self.now:
                    self.engine.abort(name)
            self.step()
            self.now += 1
            assert self.now < 3000, "it does not end"
        self.engine.check_integrity()

    def step(self) -> None:
        if not self.is_overlapped:
            self.tell(self.engine.step())
        else:
            self.engine.start_step()
            self.engine.check_integrity()
            self.tell(self.engine.take_deltas())
            self.engine.check_integrity()
            self.engine.finish_step()
        for name, error in self.engine.take_failures():
            assert isinstance(error, RequestMemoryError)
            self.failed.add(name)
        self.engine.check_integrity()

    def tell(self, deltas: Sequence[tuple[str, object]]) -> None:
        for name, delta in deltas:
            self.told[name].add(delta)  # type: ignore[arg-type]

    def check(self) -> None:
        for (name, told), plan in zip(self.told.items(), self.plans, strict=True):
            whole = alone(plan.prompt, plan.params)
            start = min(plan.num_told, len(whole.token_ids))
            rest = whole.token_ids[start:]
            if told.finish_reason is None:
                assert plan.leaves is not None or name in self.failed, "a request was lost"
                assert told.token_ids == rest[: len(told.token_ids)]
            else:
                assert told.token_ids == rest
                assert told.finish_reason == whole.finish_reason
                assert whole.text.endswith(told.text)
                assert told.logprobs == whole.logprobs[start:]
                assert told.usage == whole.usage
                count = plan.params.prompt_logprobs
                scores = None if count is None else expected_scores(plan.prompt, count)
                assert told.prompt_logprobs == whole.prompt_logprobs == scores


def check_fake(engine: LLMEngine, fake: DeviceFake) -> None:
    assert engine.scheduler.block_manager.num_free == fake.num_blocks
    assert not fake.queue
    assert max((int(b.context_lens.max()) for b in fake.batches), default=0) < MAX_MODEL_LEN


schedules = {
    "plans": st.lists(plans, min_size=1, max_size=7),
    "num_blocks": st.integers(8, 24),
    "max_num_seqs": st.integers(1, 5),
    "max_num_batched_tokens": st.integers(5, 40),
    "num_speculative_tokens": st.sampled_from([0, 0, 4]),
    "seed": st.none() | st.integers(0, 99),
    "is_overlapped": st.booleans(),
}


def some_plans() -> list[Plan]:
    """With stop ids and strings, penalties, lengths, equal prompts, and an abort."""
    chosen = random.Random(1)
    own = []
    for i in range(24):
        params = SamplingParams(
            temperature=i % 2,
            repetition_penalty=1.3 if i % 3 else 1,
            max_tokens=chosen.randint(2, 24),
            seed=i,
            stop=("b你",) if i % 5 == 0 else (),
            stop_token_ids=tuple(range(i % 4 * 5)),
            ignore_eos=True,
        )
        prompt = (0, 1) * chosen.randint(1, 5) + (i % 2,)
        own.append(Plan(prompt, params, 0, 0, i % 12, 5 if i % 11 == 10 else None))
    return own
