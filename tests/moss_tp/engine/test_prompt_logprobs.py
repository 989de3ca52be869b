"""Log probabilities of a prompt's tokens: transformers' values, and the same bits by every way."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moss_tp import LLM, RequestOutput
from moss_tp.accelerator.base import Accelerator
from moss_tp.accelerator.eager import EagerAccelerator
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling import sequence
from moss_tp.errors import ContextLengthError
from moss_tp.sampling import scores
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling_params import MAX_LOGPROBS, SamplingParams
from tests.support.devices.cuda_on_cpu import CudaOnCpu
from tests.support.devices.lazy_accelerator import LazyAccelerator
from tests.support.same_bytes import Bench
from tests.support.tiny_moss import load_oracle

MAX_MODEL_LEN = 192
LENGTHS = (1, 2, 5, 16, 17, 40, 65, 66, 127, 192)
PROMPTS = [[(7 * i * i + length) % 256 for i in range(length)] for length in LENGTHS]
ONLY = SamplingParams(max_tokens=0, prompt_logprobs=MAX_LOGPROBS)
GREEDY = SamplingParams(temperature=0, repetition_penalty=1, max_tokens=9, ignore_eos=True)
Scores = list[SampledToken] | None


def open_llm(model: str, tp_size: int = 1, **settings: object) -> LLM:
    fixed = {"dtype": "float32", "max_model_len": MAX_MODEL_LEN, "num_threads": 1, **settings}
    return LLM(model, tp_size=tp_size, **fixed)  # type: ignore[arg-type]


def scores_of(outputs: Sequence[RequestOutput]) -> list[Scores]:
    return [output.prompt_logprobs for output in outputs]


@pytest.fixture(scope="module")
def oracle(tiny_model: str) -> list[Tensor]:
    """Of each prompt, log probabilities of all tokens after each token `(T, V)`."""
    model = load_oracle(Path(tiny_model))
    with torch.inference_mode():
        logits = [model(torch.tensor([prompt])).logits[0] for prompt in PROMPTS]
    return [one.log_softmax(dim=-1) for one in logits]


def assert_near(found: Sequence[Scores], oracle: Sequence[Tensor]) -> None:
    for prompt, tokens, logprobs in zip(PROMPTS, found, oracle, strict=True):
        assert tokens is not None
        assert [token.token_id for token in tokens] == prompt[1:]
        for token, row in zip(tokens, logprobs, strict=False):
            assert token.logprob == pytest.approx(row[token.token_id].item(), abs=1e-4)
            best = row.topk(MAX_LOGPROBS)
            assert [value for _, value in token.top_logprobs] == pytest.approx(
                best.values.tolist(), abs=1e-4
            )
            assert token.top_logprobs[0][0] == best.indices[0]


@pytest.fixture(scope="module", params=[1, 2, 4])
def llm(tiny_model: str, request: pytest.FixtureRequest) -> Iterator[LLM]:
    with open_llm(tiny_model, request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(llm: LLM) -> list[Scores]:
    """Each prompt in one chunk."""
    return [llm.generate([prompt], ONLY)[0].prompt_logprobs for prompt in PROMPTS]


def test_transformers_log_probabilities(alone: list[Scores], oracle: list[Tensor]) -> None:
    assert_near(alone, oracle)
    shifted = [[], *alone[1:-1], alone[-1][1:] + alone[-1][:1]]  # type: ignore[index]
    with pytest.raises(AssertionError):
        assert_near(shifted, oracle)


def test_nothing_is_sampled_when_nothing_is_asked_for(llm: LLM) -> None:
    outputs = llm.generate(PROMPTS, ONLY)
    assert [output.token_ids for output in outputs] == [[] for _ in PROMPTS]
    assert {(output.text, output.finish_reason) for output in outputs} == {("", "length")}
    assert [output.num_prompt_tokens for output in outputs] == list(LENGTHS)
    with pytest.raises(ContextLengthError):
        llm.generate([[1] * (MAX_MODEL_LEN + 1)], ONLY)
    with pytest.raises(ContextLengthError):
        llm.generate([[1] * MAX_MODEL_LEN], replace(ONLY, max_tokens=1))


def test_the_same_bits_batched_and_beside_others(llm: LLM, alone: list[Scores]) -> None:
    """Whatever the prefix cache has of the prompts by now."""
    assert scores_of(llm.generate(PROMPTS, ONLY)) == alone
    params = [GREEDY if i % 2 else ONLY for i in range(len(PROMPTS) - 1)]
    outputs = llm.generate(PROMPTS[:-1], params)
    without = llm.generate(PROMPTS[:-1], GREEDY)
    for i, output in enumerate(outputs):
        if i % 2:
            assert output.token_ids == without[i].token_ids
            assert output.prompt_logprobs is None
        else:
            assert (output.prompt_logprobs, output.num_cached_tokens) == (alone[i], 0)


def test_with_a_reply(llm: LLM, alone: list[Scores]) -> None:
    """Of which nothing changes."""
    params = replace(GREEDY, logprobs=2)
    replies = llm.generate(PROMPTS[:-1], params)
    both = llm.generate(PROMPTS[:-1], replace(params, prompt_logprobs=MAX_LOGPROBS))
    assert scores_of(both) == alone[:-1]
    assert [output.outputs for output in both] == [output.outputs for output in replies]
    assert [output.num_cached_tokens for output in both] == [0] * len(both)


def test_of_fewer_tokens_and_of_none(llm: LLM, alone: list[Scores]) -> None:
    for count in (0, 3):
        output = llm.generate([PROMPTS[5]], replace(ONLY, prompt_logprobs=count))[0]
        assert output.prompt_logprobs == [
            SampledToken(token.token_id, token.logprob, token.top_logprobs[:count])
            for token in alone[5] or []
        ]


def test_several_choices_score_their_prompt_once(llm: LLM, alone: list[Scores]) -> None:
    (output,) = llm.generate([PROMPTS[5]], replace(GREEDY, n=3, prompt_logprobs=MAX_LOGPROBS))
    assert len(output.outputs) == 3
    assert output.prompt_logprobs == alone[5]
    (output,) = llm.generate([PROMPTS[5]], replace(ONLY, n=2))
    assert output.prompt_logprobs == alone[5]
    assert [one.token_ids for one in output.outputs] == [[], []]


def test_with_a_reply_that_is_resumed_or_has_ended(llm: LLM, alone: list[Scores]) -> None:
    params = replace(GREEDY, prompt_logprobs=MAX_LOGPROBS)
    reply = llm.generate([PROMPTS[5]], GREEDY)[0].token_ids
    for num_told in (1, 5, len(reply)):
        (output,) = llm.generate([PROMPTS[5]], params, [reply[:num_told]])
        assert output.prompt_logprobs == alone[5]
        assert (output.token_ids, output.finish_reason) == (reply[num_told:], "length")


@pytest.mark.parametrize("size", [9, 64, 100])
def test_the_same_bits_in_chunks(llm: LLM, alone: list[Scores], size: int) -> None:
    changes = {"max_num_batched_tokens": size, "max_mixed_prefill_tokens": size, "max_num_seqs": 6}
    found = run(llm, [ONLY] * len(PROMPTS), **changes)
    assert found == alone


def test_the_same_bits_preempted(llm: LLM, alone: list[Scores]) -> None:
    """In the middle of a prompt, and of a reply; with drafts."""
    params = replace(GREEDY, max_tokens=40, prompt_logprobs=MAX_LOGPROBS)
    each = [replace(params, max_tokens=min(40, MAX_MODEL_LEN - n)) for n in LENGTHS]
    changes = {"max_num_batched_tokens": 30, "max_num_seqs": 8, "num_speculative_tokens": 7}
    assert run(llm, each, num_blocks=15, **changes) == alone


def run(llm: LLM, params: Sequence[SamplingParams], **changes: int) -> list[Scores]:
    """All prompts at the same time, on an engine of other settings."""
    bench = Bench(llm, [])
    with bench.engine(**changes) as engine:
        for i, (prompt, one) in enumerate(zip(PROMPTS, params, strict=True)):
            engine.add_request(EngineRequest(f"{i}", prompt, one))
        found: dict[str, Scores] = {}
        while engine.has_work:
            for name, delta in engine.step():
                if delta.prompt_logprobs is not None:
                    assert name not in found
                    found[name] = list(delta.prompt_logprobs)
            engine.check_integrity()
        assert not engine.scheduler.scoring
        if "num_blocks" in changes:
            assert engine.scheduler.num_preemptions > 0
        return [found[f"{i}"] for i in range(len(PROMPTS))]


def test_slices_do_not_matter(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more rows of logits exist at once than a slice has."""
    with open_llm(tiny_model) as opened:
        before = scores_of(opened.generate(PROMPTS, ONLY))
        widths: list[int] = []
        model = opened.engine.executor._driver._runner.model  # type: ignore[attr-defined]
        head = model.head

        def counted(x: Tensor, rows: Tensor) -> Tensor | None:
            widths.append(len(rows))
            logits: Tensor | None = head(x, rows)
            return logits

        monkeypatch.setattr(model, "head", counted)
        for rows, few in ((7, 1), (5, 3)):
            monkeypatch.setattr(scores, "MAX_HEAD_ROWS", rows)
            monkeypatch.setattr(scores, "MAX_VOCAB_ROWS", few)
            assert scores_of(opened.generate(PROMPTS, ONLY)) == before
            assert max(widths) == rows
            widths.clear()


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize("gpu", [EagerAccelerator, LazyAccelerator])
def test_on_a_device_two_steps_ahead(
    tiny_model: str, oracle: list[Tensor], gpu: type[Accelerator], tp_size: int
) -> None:
    """Prompts of up to 16 rows have a graph otherwise; three chunks are on their way."""
    executor = partial(CudaOnCpu, accelerator=gpu())
    settings = {"device": "cuda", "executor": executor, "kv_cache_bytes": 2**22}
    limits = {"max_num_batched_tokens": 70, "max_num_seqs": 4, "num_speculative_tokens": 3}
    with open_llm(tiny_model, tp_size, **settings, **limits) as opened:
        found = scores_of(opened.generate(PROMPTS, ONLY))
        assert_near(found, oracle)
        params = [replace(GREEDY, prompt_logprobs=3) if i % 3 else GREEDY for i in range(9)]
        replies = opened.generate(PROMPTS[:-1], params)
        assert [reply.token_ids for reply in replies] == [
            reply.token_ids for reply in opened.generate(PROMPTS[:-1], GREEDY)
        ]
        for i, reply in enumerate(replies):
            assert (reply.prompt_logprobs is None) == (i % 3 == 0)


def test_a_prefix_of_the_cache_that_is_read_is_noticed(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a request with logprobs took what another has computed."""
    with open_llm(tiny_model) as opened:
        opened.generate(PROMPTS[:-1], GREEDY)
        cached = property(lambda seq: seq.num_tokens - 1)
        monkeypatch.setattr(sequence.Sequence, "max_cached_tokens", cached)
        (output,) = opened.generate([PROMPTS[5]], ONLY)
        assert len(output.prompt_logprobs or []) < LENGTHS[5] - 1
