"""What an engine says it has to do: tokens in all, and the blocks of sequences that run."""

from itertools import count

import pytest

from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.load import EngineLoad, load_of
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.speeds import REPLY_TOKENS_AT_START
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import PagedFake, fake_engine

BLOCK, NUM_BLOCKS = 4, 64
PROMPT = list(range(10, 22))  # three blocks


@pytest.fixture
def engine() -> LLMEngine:
    return fake_engine(PagedFake(NUM_BLOCKS, BLOCK), max_num_seqs=2, num_speculative_tokens=0)


names = count()


def add(engine: LLMEngine, prompt: list[int], max_tokens: int = 8) -> None:
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, temperature=0)
    engine.add_request(EngineRequest(str(next(names)), tuple(prompt), params))


def step(engine: LLMEngine) -> None:
    engine.start_step()
    engine.take_deltas()
    engine.finish_step()


def load(engine: LLMEngine) -> EngineLoad:
    return load_of(engine.scheduler, engine.admission.speeds, engine.config.max_num_seqs)


def test_an_idle_engine_has_nothing_to_do(engine: LLMEngine) -> None:
    assert load(engine) == EngineLoad(0, 0, 0, 0, NUM_BLOCKS, 2)


def test_tokens_are_those_of_prompt_and_reply_from_first_to_last(engine: LLMEngine) -> None:
    add(engine, PROMPT)
    assert load(engine).waiting_tokens == len(PROMPT) + 8
    assert load(engine).running_tokens == 0
    for _ in range(4):
        step(engine)
        assert (load(engine).waiting_tokens, load(engine).running_tokens) == (0, len(PROMPT) + 8)
    while engine.has_work:
        step(engine)
    assert load(engine).running_tokens == 0


def test_an_unbounded_reply_is_one_of_average_length(engine: LLMEngine) -> None:
    add(engine, PROMPT, max_tokens=1000)
    assert load(engine).waiting_tokens == len(PROMPT) + REPLY_TOKENS_AT_START


def test_cached_tokens_and_cached_blocks_are_no_load(engine: LLMEngine) -> None:
    add(engine, PROMPT, max_tokens=1)
    while engine.has_work:
        step(engine)
    idle = load(engine)
    assert (idle.held_blocks, idle.running_tokens) == (0, 0), "its blocks are only cached"
    add(engine, PROMPT, max_tokens=8)
    step(engine)
    running = load(engine)
    assert running.held_blocks == len(PROMPT) / BLOCK
    assert running.running_tokens == BLOCK + 8, "two of three blocks were cached"


def test_requests_wait_beyond_the_slots(engine: LLMEngine) -> None:
    for first in range(3):
        add(engine, [first, *PROMPT[1:]])
    step(engine)
    assert load(engine).num_requests == 3
    assert load(engine).running_tokens == 2 * (len(PROMPT) + 8)
    assert load(engine).waiting_tokens == pytest.approx(len(PROMPT) + 8)
