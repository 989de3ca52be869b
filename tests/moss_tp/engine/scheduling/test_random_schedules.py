"""Random requests on random engines: every reply is the one its prompt has alone.

Hypothesis mixes all paths: chunks, prefix cache, preemption, speculation,
priorities, aborts, a cache in int8, and ranks that share memory. Integrity is checked after
each step. The reference replies come from an engine with one request, no drafts and no cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp import LLM, SamplingParams
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.block_manager import BlockManager
from moss_tp.engine.scheduling.scheduler import Scheduler
from tests.moss_tp.engine.test_invariance import engine

NUM_TOKENS = 24
GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_tokens=NUM_TOKENS, ignore_eos=True)
_STEM = [(5 * i * i + 3) % 256 for i in range(40)]
# Two share their first 40 tokens; one is periodic, so that its drafts are accepted.
PROMPTS = ([7], _STEM, [*_STEM, 9, 8, 7], [1, 2, 3, 4] * 12, [(11 * i) % 256 for i in range(90)])
# 2 layers, K and V, 16 slots of 64 values, in fp32, or in int8 with the scales of 4 heads.
BLOCK_BYTES = {None: 2 * 2 * 16 * 64 * 4, "int8": 2 * 2 * 16 * (64 + 4 * 4)}
NUM_BLOCKS = 12  # of 192 tokens: one sequence

Replies = dict[str | None, list[list[int]]]


@dataclass(frozen=True)
class Request:
    """`arrives` and `leaves` are step numbers; None is never aborted."""

    prompt: int
    arrives: int
    priority: int
    leaves: int | None


requests = st.lists(
    st.builds(
        Request,
        prompt=st.integers(0, len(PROMPTS) - 1),
        arrives=st.integers(0, 30),
        priority=st.integers(-2, 2),
        leaves=st.none() | st.integers(0, 30),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def alone(tiny_model: str) -> Replies:
    replies: Replies = {}
    for cache in BLOCK_BYTES:
        replies[cache] = []
        for prompt in PROMPTS:
            with engine(tiny_model, 1, kv_cache_dtype=cache, num_speculative_tokens=0) as llm:
                replies[cache].append(llm.generate([prompt], GREEDY)[0].token_ids)
    return replies


@pytest.fixture(scope="module", params=[2])
def ranks(tiny_model: str, request: pytest.FixtureRequest) -> Iterator[LLM]:
    bytes_a_rank = (NUM_BLOCKS + 6) * BLOCK_BYTES[None] // request.param
    settings = {"kv_cache_bytes": bytes_a_rank, "max_num_batched_tokens": 24, "max_num_seqs": 5}
    with engine(tiny_model, request.param, **settings) as llm:
        yield llm


def run(llm: LLM, wanted: list[Request]) -> list[list[int] | None]:
    """The tokens of each request, or None if it was aborted."""
    own = {f"r{number}": request for number, request in enumerate(wanted)}
    tokens: dict[str, list[int]] = {name: [] for name in own}
    ended: set[str] = set()
    step = 0
    while llm.engine.has_work or any(request.arrives >= step for request in wanted):
        for name, request in own.items():
            if request.arrives == step:
                prompt = PROMPTS[request.prompt]
                llm.engine.add_request(
                    EngineRequest(name, prompt, GREEDY, priority=request.priority)
                )
            if request.leaves is not None and request.arrives + request.leaves == step:
                llm.engine.abort(name)
        for name, delta in llm.engine.step():
            tokens[name] += delta.token_ids
            if delta.finish_reason is not None:
                ended.add(name)
        llm.engine.check_integrity()
        step += 1
    assert llm.engine.scheduler.block_manager.num_free == llm.engine.executor.num_blocks
    return [tokens[name] if name in ended else None for name in own]


def check(results: list[list[int] | None], wanted: list[Request], alone: list[list[int]]) -> None:
    for result, request in zip(results, wanted, strict=True):
        if result is None:
            assert request.leaves is not None, "a request did not finish"
        else:
            assert result == alone[request.prompt]


@settings(max_examples=25, deadline=None)
@given(
    wanted=requests,
    cache=st.sampled_from(list(BLOCK_BYTES)),
    spare_blocks=st.integers(0, 20),
    tokens_per_step=st.integers(6, 64),
    max_num_seqs=st.integers(1, 6),
    num_drafts=st.integers(0, 7),
)
def test_any_schedule_on_any_engine(
    tiny_model: str,
    alone: Replies,
    wanted: list[Request],
    cache: str | None,
    spare_blocks: int,
    tokens_per_step: int,
    max_num_seqs: int,
    num_drafts: int,
) -> None:
    settings: dict[str, Any] = {
        "kv_cache_dtype": cache,
        "kv_cache_bytes": (NUM_BLOCKS + spare_blocks) * BLOCK_BYTES[cache],
        "max_num_batched_tokens": tokens_per_step,
        "max_num_seqs": max_num_seqs,
        "num_speculative_tokens": num_drafts,
    }
    with engine(tiny_model, 1, **settings) as llm:
        check(run(llm, wanted), wanted, alone[cache])


@settings(max_examples=20, deadline=None)
@given(wanted=requests)
def test_any_schedule_on_ranks(ranks: LLM, alone: Replies, wanted: list[Request]) -> None:
    check(run(ranks, wanted), wanted, alone[None])


@pytest.mark.parametrize("fault", ["a wrong draft is accepted", "prefixes are mixed up"])
def test_faults_are_noticed(
    fault: str, tiny_model: str, alone: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "a wrong draft is accepted":
        monkeypatch.setattr(Scheduler, "_is_accepted", lambda self, drafted, sampled: True)
    else:
        any_block = lambda self, seq: [3] * (seq.num_tokens > 16)  # noqa: E731
        monkeypatch.setattr(BlockManager, "_find_prefix", any_block)
    wanted = [Request(prompt, 3 * prompt, 0, None) for prompt in range(len(PROMPTS))]
    with engine(tiny_model, 1) as llm, pytest.raises(AssertionError):
        check(run(llm, wanted), wanted, alone[None])
