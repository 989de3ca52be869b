"""64 greedy tokens equal those of transformers on every path through the engine.

The reference computes each prompt alone, without our cache. In fp32 the rounding differences of
another summation order are smaller than the gap between the two best tokens of these checkpoints.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from moss_tp import LLM, RequestOutput, SamplingParams
from tests.support.tiny_moss import load_oracle

NUM_TOKENS = 64
MAX_MODEL_LEN = 192
GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_tokens=NUM_TOKENS, ignore_eos=True)
LENGTHS = (1, 5, 16, 17, 40, 100, 127)
PROMPTS = [[(7 * i * i + length) % 256 for i in range(length)] for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(tiny_model: str) -> list[list[int]]:
    oracle = load_oracle(Path(tiny_model))
    replies = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        output = oracle.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        replies.append(output[0, len(prompt) :].tolist())
    return replies


@dataclass
class Case:
    """An engine on one of the paths."""

    llm: LLM
    tp_size: int

    def tokens(self, prompts: list[list[int]]) -> list[list[int]]:
        return [output.token_ids for output in self.llm.generate(prompts, GREEDY)]


def kv_bytes(num_blocks: int, tp_size: int) -> int:
    """2 layers, K and V, 16 slots, hidden size 64, 4 bytes."""
    return num_blocks * 2 * 2 * 16 * 64 * 4 // tp_size


def num_preemptions(llm: LLM) -> int:
    return llm.engine.scheduler.num_preemptions


def ids(outputs: list[RequestOutput]) -> list[list[int]]:
    return [output.token_ids for output in outputs]


def engine(model: str, tp_size: int, **settings: Any) -> LLM:
    return LLM(model, tp_size=tp_size, dtype="float32", max_model_len=MAX_MODEL_LEN, **settings)


@pytest.fixture(scope="module", params=[1, 2, 4])
def roomy(tiny_model: str, request: pytest.FixtureRequest) -> Iterator[Case]:
    with engine(tiny_model, request.param) as llm:
        yield Case(llm, request.param)


@pytest.fixture(scope="module", params=[1, 2, 4])
def tight(tiny_model: str, request: pytest.FixtureRequest) -> Iterator[Case]:
    """Blocks for little more than one sequence, and 9 tokens per step."""
    settings = {
        "kv_cache_bytes": kv_bytes(14, request.param),
        "max_num_batched_tokens": 9,
        "max_num_seqs": 6,
    }
    with engine(tiny_model, request.param, **settings) as llm:
        yield Case(llm, request.param)


def test_the_replies_are_worth_comparing(expected: list[list[int]]) -> None:
    assert len({tuple(reply) for reply in expected}) == len(PROMPTS)
    assert all(len(set(reply)) > 8 for reply in expected)


def test_batched_alone_and_cached(roomy: Case, expected: list[list[int]]) -> None:
    assert roomy.tokens(PROMPTS) == expected
    alone = [roomy.llm.generate([prompt], GREEDY)[0] for prompt in PROMPTS]
    assert [output.token_ids for output in alone] == expected
    # All but the last token of the prompt can come from the batched run.
    assert [o.num_cached_tokens for o in alone] == [(n - 1) // 16 * 16 for n in LENGTHS]


def test_alone_without_a_prefix_cache(tiny_model: str, expected: list[list[int]]) -> None:
    for prompt, reply in list(zip(PROMPTS, expected, strict=True))[::3]:
        with engine(tiny_model, 1) as llm:
            output = llm.generate([prompt], GREEDY)[0]
        assert (output.token_ids, output.num_cached_tokens) == (reply, 0)


def test_a_second_turn_on_cached_blocks(roomy: Case, expected: list[list[int]]) -> None:
    """Half of the reference reply becomes part of the prompt."""
    half = NUM_TOKENS // 2
    prompts = [p + reply[:half] for p, reply in zip(PROMPTS, expected, strict=True)]
    outputs = roomy.llm.generate(prompts, GREEDY)
    assert [o.token_ids[:half] for o in outputs] == [reply[half:] for reply in expected]
    assert all(o.num_cached_tokens >= o.num_prompt_tokens - 32 for o in outputs)


def test_chunked_and_preempted(tight: Case, expected: list[list[int]]) -> None:
    before = num_preemptions(tight.llm)
    assert tight.tokens(PROMPTS) == expected
    assert num_preemptions(tight.llm) > before


INT8_BLOCK_BYTES = 2 * 2 * 16 * (64 + 4 * 4)  # with the scales of 4 heads


@pytest.fixture(scope="module")
def int8_replies(tiny_model: str) -> list[list[int]]:
    with engine(tiny_model, 1, kv_cache_dtype="int8") as llm:
        return [ids(llm.generate([prompt], GREEDY))[0] for prompt in PROMPTS]


@pytest.mark.parametrize("tp_size", [1, 2, 4])
def test_an_int8_cache_gives_the_same_reply_on_every_path(
    tp_size: int, tiny_model: str, int8_replies: list[list[int]]
) -> None:
    """Values are rounded when they are written, and each head is whole on its rank: batched in
    chunks and preempted, then alone on cached blocks."""
    settings = {
        "kv_cache_dtype": "int8",
        "kv_cache_bytes": 14 * INT8_BLOCK_BYTES // tp_size,
        "max_num_batched_tokens": 9,
        "max_num_seqs": 6,
    }
    with engine(tiny_model, tp_size, **settings) as llm:
        assert ids(llm.generate(PROMPTS, GREEDY)) == int8_replies
        assert num_preemptions(llm) > 0
        again = [llm.generate([PROMPTS[-1]], GREEDY)[0] for _ in range(2)]
    assert ids(again) == int8_replies[-1:] * 2
    assert again[1].num_cached_tokens > 0


def test_an_int8_cache_gives_nearly_the_same_reply(
    int8_replies: list[list[int]], expected: list[list[int]]
) -> None:
    """The logits of random weights are closer than trained ones, and replies diverge from the first
    different token on. At least half of all tokens come before that."""
    agreed = 0
    for own, reply in zip(int8_replies, expected, strict=True):
        pairs = list(zip(own, reply, strict=True))
        agreed += next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    assert NUM_TOKENS * len(PROMPTS) // 2 < agreed


def test_a_seed_gives_the_same_reply_in_any_batch(tiny_model: str) -> None:
    """Each request has its own settings, which must not affect the others."""
    common: dict[str, Any] = {"temperature": 1.2, "max_tokens": 40, "ignore_eos": True}
    changes: list[dict[str, Any]] = [
        {"top_p": 0.95},
        {"top_k": 0, "top_p": 1, "presence_penalty": 1.0},
        {"frequency_penalty": 0.5, "repetition_penalty": 1},
        {"min_p": 0.05, "top_k": 0, "top_p": 1},
        {"logit_bias": ((5, 4.0), (9, -100.0))},
        {"top_k": 100, "top_p": 0.9, "logprobs": 3},
        {"ignore_eos": False, "length_penalty": 1.2, "regulation_start": 10, "min_tokens": 20},
    ]
    params = [SamplingParams(seed=seed, **{**common, **one}) for seed, one in enumerate(changes)]
    tokens: list[list[list[int]]] = []
    with engine(tiny_model, 1) as llm:
        alone = [llm.generate([p], one)[0] for p, one in zip(PROMPTS, params, strict=True)]
        tokens.append(ids(alone))
        tokens.append(ids(llm.generate(PROMPTS, params)))
        reverse = llm.generate(PROMPTS[::-1], params[::-1])[::-1]
        tokens.append(ids(reverse))
    with engine(tiny_model, 1, kv_cache_bytes=kv_bytes(14, 1), max_num_batched_tokens=64) as llm:
        tokens.append(ids(llm.generate(PROMPTS, params)))
        assert num_preemptions(llm) > 0
    assert all(run == tokens[0] for run in tokens)
    other = [SamplingParams(temperature=1.2, top_p=0.95, seed=99, max_tokens=40)]
    with engine(tiny_model, 1) as llm:
        assert ids(llm.generate(PROMPTS[:1], other)) != tokens[0][:1]
