"""The public library API on one rank."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp import LLM, RequestOutput, SamplingParams
from moss_tp.engine.running.step import Step
from moss_tp.engine.running.steps import FailedStep
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.errors import (
    CheckpointError,
    ContextLengthError,
    EngineDeadError,
    InvalidRequestError,
    RequestMemoryError,
    StepMemoryError,
)
from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling_params import derive_seed
from tests.support.anything import anything
from tests.support.config_only import config_only
from tests.support.tiny_moss import EOS_ID, make_checkpoint

FIELDS = [one.name for one in fields(SamplingParams)]
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    model = make_checkpoint(tmp_path_factory.mktemp("llm") / "tiny")
    with LLM(str(model), max_model_len=64) as opened:
        yield opened


def test_text_and_ids_are_the_same_prompt(llm: LLM) -> None:
    ids = llm.tokenizer.encode("你好 the")
    first, second = llm.generate(["你好 the", "the"], GREEDY)
    assert isinstance(first, RequestOutput)
    (again,) = llm.generate([ids], GREEDY)
    assert (again.token_ids, again.text) == (first.token_ids, first.text)
    assert first.num_prompt_tokens == len(ids)
    assert first.finish_reason == second.finish_reason == "length"
    assert len(first.token_ids) == 8


def test_dummy_weights_do_without_a_tokenizer(tmp_path: Path) -> None:
    with LLM(str(config_only(tmp_path)), dtype="float32", load_format="dummy") as random:
        (reply,) = random.generate([[5, 6, 7]], GREEDY)
        assert len(reply.token_ids) == 8 and len(reply.text) == 8
        with pytest.raises(InvalidRequestError, match="a prompt is a list of token ids"):
            random.generate(["the"], GREEDY)
    with pytest.raises(CheckpointError, match="tokenizer"):
        LLM(str(config_only(tmp_path)), dtype="float32")


def test_several_replies_compute_their_prompt_once(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others find its full blocks in the cache."""
    lengths: list[int] = []
    submit = llm.engine.executor.submit

    def counted(batch: Batch, rows: Sequence[SamplingRow]) -> Step:
        lengths.append(len(batch.token_ids))
        return submit(batch, rows)

    monkeypatch.setattr(llm.engine.executor, "submit", counted)
    prompt = [5 * i % 200 for i in range(40)]
    (output,) = llm.generate([prompt], SamplingParams(max_tokens=1, seed=3, n=4, ignore_eos=True))
    assert len(output.outputs) == 4
    assert sum(lengths) == 40 + 3 * (40 - 32)


def test_a_request_that_is_too_large_for_the_memory_is_one_error(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as too_small:
        failed = FailedStep(StepMemoryError("too large"))
        too_small.setattr(llm.engine.executor, "submit", lambda *_: failed)
        with pytest.raises(RequestMemoryError, match="does not fit"):
            llm.generate(["a", "b"], GREEDY)
    assert len(llm.generate(["a"], GREEDY)[0].token_ids) == 8


def test_special_tokens_in_text_are_text(llm: LLM) -> None:
    (output,) = llm.generate(["<eom>"], GREEDY)
    assert output.num_prompt_tokens == len("<eom>")


def test_each_prompt_can_have_its_own_params(llm: LLM) -> None:
    params = [
        SamplingParams(max_tokens=n, min_tokens=n, seed=n, stop_token_ids=(EOS_ID,))
        for n in (1, 5, 3)
    ]
    outputs = llm.generate(["a", "b", "c"], params)
    assert [len(output.token_ids) for output in outputs] == [1, 5, 3]
    assert all(EOS_ID not in output.token_ids[:-1] for output in outputs)


def test_a_stop_id_ends_and_is_counted_but_not_shown(llm: LLM) -> None:
    (free,) = llm.generate(["a"], GREEDY)
    stop = free.token_ids[3]
    first = free.token_ids.index(stop)
    params = SamplingParams(temperature=0, max_tokens=8, stop_token_ids=(stop,), ignore_eos=True)
    (output,) = llm.generate(["a"], params)
    assert output.finish_reason == "stop"
    assert output.token_ids == free.token_ids[: first + 1]
    assert output.text == llm.tokenizer.decode(free.token_ids[:first])


def test_n_replies_are_those_of_the_derived_seeds(llm: LLM) -> None:
    params = SamplingParams(temperature=2, top_k=0, top_p=1, max_tokens=6, seed=7, n=3)
    outputs = llm.generate(["a", "b"], params)
    seeds = (7, derive_seed(7, 1), derive_seed(7, 2))
    single = [replace(params, n=1, seed=seed) for seed in seeds]
    for prompt, output in zip("ab", outputs, strict=True):
        alone = llm.generate([prompt] * 3, single)
        assert [one.token_ids for one in output.outputs] == [one.token_ids for one in alone]
        assert len({tuple(one.token_ids) for one in output.outputs}) == 3
        assert (output.token_ids, output.text) == (alone[0].token_ids, alone[0].text)
    assert outputs[0].request_id != outputs[1].request_id


def test_logprobs_are_returned_only_if_requested(llm: LLM) -> None:
    """Greedy without penalties: each token is the best, and nothing is more probable."""
    with_two = replace(GREEDY, repetition_penalty=1, logprobs=2)
    with_logprobs, without = llm.generate(["a", "a"], [with_two, replace(with_two, logprobs=None)])
    assert without.logprobs is None
    assert with_logprobs.logprobs is not None
    assert [token.token_id for token in with_logprobs.logprobs] == without.token_ids
    for token in with_logprobs.logprobs:
        (best_id, best), (_, second) = token.top_logprobs
        assert (best_id, best) == (token.token_id, token.logprob)
        assert second <= best < 0  # bf16 has ties


def test_a_reply_goes_on_after_the_tokens_that_were_told(llm: LLM) -> None:
    """Greedy and after one chunk: test_same_bytes compares all paths."""
    wholes = llm.generate(["a", "b"], GREEDY)
    told = [wholes[0].token_ids[:5], []]
    first, second = llm.generate(["a", "b"], GREEDY, told)
    assert first.token_ids == wholes[0].token_ids[5:]
    assert first.text and wholes[0].text.endswith(first.text)
    assert [one.outputs[0].num_told_tokens for one in (first, second)] == [5, 0]
    assert second.token_ids == wholes[1].token_ids
    (ended,) = llm.generate(["a"], GREEDY, [wholes[0].token_ids])
    assert (ended.token_ids, ended.text, ended.finish_reason) == ([], "", "length")


@pytest.mark.parametrize(
    ("output_ids", "n", "error"),
    [
        ([[1], [2]], 2, "output_ids is of one reply, and n is 2"),
        ([[1]], 1, "output_ids has 1 replies for 2 prompts"),
        ([1, 2], 1, "output_ids is not a list"),
        ([[1.5], []], 1, "output_ids is not an integer"),
        (5, 1, "output_ids is not a list"),
        ({(1,), (2,)}, 1, "output_ids is a set"),
        ([{1, 2}, []], 1, "output_ids is a set"),
    ],
)
def test_told_tokens_are_one_list_a_prompt(llm: LLM, output_ids: Any, n: int, error: str) -> None:
    with pytest.raises(InvalidRequestError, match=error):
        llm.generate(["a", "b"], replace(GREEDY, n=n), output_ids)


def test_a_stop_string_is_cut_off(llm: LLM) -> None:
    (free,) = llm.generate(["a"], GREEDY)
    stop = free.text[2:4]
    (output,) = llm.generate(["a"], replace(GREEDY, stop=(stop,)))
    assert output.text == free.text[: free.text.index(stop)]
    assert output.finish_reason == "stop"


def test_more_prompts_than_the_queue_holds(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm.engine, "config", replace(llm.engine.config, max_waiting=200))
    num_prompts = 200 + llm.engine.config.max_num_seqs + 10
    one = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    outputs = llm.generate([[i % 200] for i in range(num_prompts)], one)
    assert len(outputs) == num_prompts
    assert outputs[7].token_ids == outputs[207].token_ids


def test_a_bad_prompt_starts_no_request(llm: LLM) -> None:
    steps = llm.engine.num_steps
    with pytest.raises(ContextLengthError):
        llm.generate([[1], [1] * 64], GREEDY)
    with pytest.raises(InvalidRequestError):
        llm.generate([[1], []], GREEDY)
    with pytest.raises(InvalidRequestError, match="put a single prompt into one"):
        llm.generate("hello", GREEDY)
    for prompts in (None, 5, {"a": 1}, iter(["a"])):
        with pytest.raises(InvalidRequestError, match="put a single prompt into one"):
            llm.generate(prompts, GREEDY)  # type: ignore[arg-type]
    for prompt in ([1.0, 2.0], [True], [[1]], 5, None, b"a", [278], [-1], "a\ud800"):
        with pytest.raises(InvalidRequestError, match="prompt"):
            llm.generate(["good", prompt], GREEDY)  # type: ignore[list-item]
    wrong: list[Any] = [5, [None, None], [GREEDY, {}], {}]
    for params in wrong:
        with pytest.raises(InvalidRequestError, match="params"):
            llm.generate(["a", "b"], params)
    with pytest.raises(InvalidRequestError, match="1 sampling params for 2 prompts"):
        llm.generate(["a", "b"], [GREEDY])
    assert llm.engine.num_steps == steps
    assert llm.generate([], GREEDY) == []


_extreme = st.fixed_dictionaries(
    {"max_tokens": st.sampled_from([1, 3, 2**62])},
    optional={
        "temperature": st.sampled_from([0, 5e-324, 1e-3, 1, 10]),
        "top_p": st.sampled_from([5e-324, 0.5, 1]),
        "top_k": st.sampled_from([0, 1, 70, 300, 2**63 - 1]),
        "min_p": st.sampled_from([0, 5e-324, 1]),
        "repetition_penalty": st.sampled_from([5e-324, 1, 10]),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.integers(0, 276), st.floats(-100, 100)),
        "length_penalty": st.sampled_from([5e-324, 1, 10]),
        "regulation_start": st.sampled_from([0, 2, 2**63 - 1]),
        "min_tokens": st.sampled_from([0, 1, 2**62]),
        "seed": st.sampled_from([0, 2**63 - 1]),
        "stop": st.text(min_size=1, max_size=3),
        "stop_token_ids": st.sets(st.integers(0, 276), max_size=64),
        "max_time": st.sampled_from([5e-324, 1.7e308]),
        "logprobs": st.sampled_from([0, 20]),
    },
)


@settings(max_examples=40, deadline=None)
@given(st.lists(_extreme | st.dictionaries(st.sampled_from(FIELDS), anything), max_size=4))
def test_no_accepted_params_end_the_engine(llm: LLM, values: list[dict[str, Any]]) -> None:
    params = [GREEDY]
    for one in values:
        with suppress(InvalidRequestError):
            params.append(SamplingParams(**one))
    with suppress(InvalidRequestError):
        llm.generate([[1, 2]] * len(params), params)
    assert len(llm.generate([[1, 2]], GREEDY)[0].token_ids) == 8


def test_a_missing_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        LLM(str(tmp_path / "nowhere"))


def test_a_closed_llm_raises(tmp_path: Path) -> None:
    llm = LLM(str(make_checkpoint(tmp_path / "tiny")), max_model_len=64)
    llm.close()
    llm.close()
    with pytest.raises(EngineDeadError, match="closed"):
        llm.generate(["a"], GREEDY)


def test_importing_the_package_loads_no_torch() -> None:
    code = (
        "import sys, moss_tp.errors, moss_tp.engine.scheduling.scheduler\n"
        "from moss_tp import SamplingParams\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    moss_tp.Nothing\nexcept AttributeError: print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fine\n"


def test_fp16_is_fp32_up_to_rounding(tmp_path: Path) -> None:
    """fp16 is the default on CUDA; here torch computes it, slowly."""
    model = make_checkpoint(tmp_path / "tiny")
    firsts = []
    for dtype in ("float32", "float16"):
        with LLM(str(model), max_model_len=64, dtype=dtype) as llm:
            params = replace(GREEDY, max_tokens=1, logprobs=1)
            (output,) = llm.generate([[3, 1, 4, 1, 5]], params)
        assert output.logprobs is not None
        firsts.append(output.logprobs[0])
    assert firsts[0].token_id == firsts[1].token_id
    assert firsts[0].logprob == pytest.approx(firsts[1].logprob, abs=0.02)
