"""A reply resumed after any of its tokens is the reply that was never interrupted."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine import llm_engine
from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import InvalidRequestError, QueueFullError
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import EOS_ID, VOCAB_SIZE
from tests.moss_tp.engine.scheduling.sampling_fake import (
    PIECES,
    SamplingFake,
    Told,
    sampling_engine,
    told_by,
)

PROMPT = [3, 1, 4, 1, 5]
PARAMS = SamplingParams(seed=5, max_tokens=20, logprobs=2, temperature=1)

sampled = st.builds(
    SamplingParams,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.sampled_from([0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 40]),
    max_tokens=st.integers(12, 30),
    min_tokens=st.integers(0, 12),
    stop=st.lists(st.sampled_from(["ab你", "b你", "aab", "你", "\ufffda", "ba"]), max_size=2),
    stop_token_ids=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=3),
    logit_bias=st.dictionaries(st.integers(0, VOCAB_SIZE - 1), st.floats(-5, 5), max_size=4),
    repetition_penalty=st.sampled_from([1, 1.3]),
    presence_penalty=st.sampled_from([0, 1.5]),
    frequency_penalty=st.sampled_from([0, 0.5]),
    length_penalty=st.sampled_from([1, 1.5]),
    regulation_start=st.integers(0, 8),
    ignore_eos=st.booleans(),
    logprobs=st.sampled_from([None, 2]),
)


def undisturbed(prompt: list[int], params: SamplingParams) -> Told:
    """A token a delta: `texts[k]` is what a reader of the first k + 1 tokens knows."""
    (told,) = told_by(sampling_engine(num_speculative_tokens=0), EngineRequest("a", prompt, params))
    assert len(told.texts) == len(told.token_ids)
    return told


def check_rest(rest: Told, whole: Told, num_told: int) -> None:
    told_text = whole.texts[num_told - 1] if num_told else ""
    assert rest.token_ids == whole.token_ids[num_told:]
    assert told_text + rest.text == whole.text
    assert rest.finish_reason == whole.finish_reason
    assert rest.usage == whole.usage
    assert rest.logprobs == whole.logprobs[num_told:]


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=14),
    params=sampled,
    num_speculative_tokens=st.sampled_from([0, 7]),
    max_num_batched_tokens=st.sampled_from([3, 64]),
)
def test_any_reply_resumed_after_any_token(
    prompt: list[int],
    params: SamplingParams,
    num_speculative_tokens: int,
    max_num_batched_tokens: int,
) -> None:
    """On an engine that knows nothing of it, in chunks, then on its own cached blocks."""
    whole = undisturbed(prompt, params)
    engine = sampling_engine(
        num_speculative_tokens=num_speculative_tokens,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=3,
        device="cuda",  # a cheap row, so that much is drafted
    )
    for num_told in range(len(whole.token_ids), -1, -1):
        request = EngineRequest("a", prompt, params, output_ids=whole.token_ids[:num_told])
        (rest,) = told_by(engine, request)
        check_rest(rest, whole, num_told)


def test_resumed_replies_are_batched_and_preempted() -> None:
    """Blocks for little more than one of them."""
    params = [replace(PARAMS, seed=seed, ignore_eos=True) for seed in range(4)]
    wholes = [undisturbed(PROMPT, one) for one in params]
    engine = sampling_engine(num_blocks=9)
    requests = [
        EngineRequest(str(i), PROMPT, one, salt=str(i), output_ids=whole.token_ids[: 4 * i])
        for i, (one, whole) in enumerate(zip(params, wholes, strict=True))
    ]
    for i, (rest, whole) in enumerate(zip(told_by(engine, *requests), wholes, strict=True)):
        check_rest(rest, whole, 4 * i)
    assert engine.scheduler.num_preemptions > 0


@pytest.mark.parametrize("end", ["eos", "stop id", "stop string", "max_tokens", "context"])
def test_tokens_that_end_the_reply_take_no_step(end: str) -> None:
    whole = undisturbed(PROMPT, replace(PARAMS, ignore_eos=True))
    text = whole.texts[9]
    all_changes: dict[str, dict[str, Any]] = {
        "eos": {"logit_bias": {EOS_ID: 100}, "min_tokens": 4},
        "stop id": {"stop_token_ids": whole.token_ids[5:6]},
        "stop string": {"stop": text[-2:], "ignore_eos": True},
        "max_tokens": {"max_tokens": 7},
        "context": {"max_tokens": 40, "ignore_eos": True},
    }
    params = replace(PARAMS, **all_changes[end])
    ended = undisturbed(PROMPT, params)
    engine = sampling_engine()
    (rest,) = told_by(engine, EngineRequest("a", PROMPT, params, output_ids=ended.token_ids))
    assert engine.num_steps == 0
    assert (rest.token_ids, rest.text, rest.logprobs) == ([], "", [])
    assert rest.finish_reason == ended.finish_reason
    assert rest.usage == ended.usage == (len(PROMPT), len(ended.token_ids))
    is_length = end in ("max_tokens", "context")
    assert rest.finish_reason == ("length" if is_length else "stop")


def test_what_is_held_back_comes_with_the_rest() -> None:
    """The told tokens end in half a character, and in half a stop string."""
    half, rest = PIECES.index(b"\xe4"), PIECES.index(b"\xbd\xa0")
    whole, letter = PIECES.index("你".encode()), PIECES.index(b"a")
    for told, then, stop, expected in (
        ([half], rest, "never", "你"),
        ([letter, whole], letter, "你b", "你a"),
        ([letter, whole, half], rest, "你你", ""),
        ([whole, half], letter, "你你", "你\ufffda"),
    ):
        params = SamplingParams(temperature=0, logit_bias=((then, 100),), stop=(stop,))
        engine = sampling_engine()
        engine.add_request(EngineRequest("a", PROMPT, params, output_ids=told))
        ((_, delta),) = engine.step()
        assert (delta.token_ids, delta.text) == ((then,), expected)


def test_a_resumed_reply_finds_its_blocks_and_reports_only_those_of_its_prompt() -> None:
    engine = sampling_engine()
    params = replace(PARAMS, ignore_eos=True)
    (whole,) = told_by(engine, EngineRequest("a", PROMPT, params))
    engine.add_request(EngineRequest("b", PROMPT, params, output_ids=whole.token_ids[:15]))
    ((_, delta),) = engine.step()
    assert isinstance(engine.executor, SamplingFake)
    assert engine.executor.batches[-1].query_lens.tolist() == [4], "16 of 20 tokens are cached"
    assert delta.num_cached_tokens == len(PROMPT) == delta.num_prompt_tokens


def test_a_resumed_reply_goes_ahead_of_the_queue_and_is_never_refused() -> None:
    engine = sampling_engine(max_num_seqs=1, max_waiting=1)
    engine.add_request(EngineRequest("running", PROMPT, PARAMS))
    engine.step()
    engine.add_request(EngineRequest("waiting", PROMPT, PARAMS))
    with pytest.raises(QueueFullError):
        engine.add_request(EngineRequest("refused", PROMPT, PARAMS))
    engine.add_request(EngineRequest("resumed", PROMPT, PARAMS, output_ids=[1, 2], deadline_s=60))
    assert [seq.request_id for seq in engine.scheduler.waiting] == ["resumed", "waiting"]


def test_a_deadline_in_the_queue_holds_for_a_resumed_reply() -> None:
    engine = sampling_engine()
    engine.add_request(EngineRequest("a", PROMPT, PARAMS, output_ids=[1, 2], deadline_s=0))
    assert engine.expire() == ["a"]


@pytest.mark.parametrize(
    ("output_ids", "changes", "error"),
    [
        ([1.0], {}, "output_ids is not an integer"),
        (5, {}, "output_ids is not a list"),
        ([VOCAB_SIZE], {}, "output_ids has 97, which is outside"),
        ([1] * 21, {}, "output_ids has 21 tokens, more than max_tokens 20"),
        ([1] * 28, {"max_tokens": 40}, "output_ids has 28 tokens; .* at most 27"),
        ([EOS_ID, 1], {}, "output_ids has tokens after the end"),
        ([0, 1, 0], {"stop": "ab"}, "output_ids has tokens after a stop string"),
    ],
)
def test_tokens_that_no_reply_begins_with(
    output_ids: Any, changes: dict[str, Any], error: str
) -> None:
    engine = sampling_engine()
    params = replace(PARAMS, **changes)
    with pytest.raises(InvalidRequestError, match=error):
        engine.add_request(EngineRequest("a", PROMPT, params, output_ids=output_ids))
    assert not engine.has_work
    engine.check_integrity()


@pytest.mark.parametrize("many_texts", [0, 10**9])
def test_an_ended_reply_is_told_beside_running_ones(
    many_texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_engine, "MANY_TEXTS", many_texts)
    engine = sampling_engine()
    engine.add_request(EngineRequest("running", PROMPT, PARAMS))
    engine.step()
    engine.add_request(EngineRequest("ended", PROMPT, PARAMS, output_ids=[EOS_ID]))
    engine.check_integrity()
    assert dict(engine.step())["ended"].finish_reason == "stop"
    engine.add_request(EngineRequest("gone", PROMPT, PARAMS, output_ids=[EOS_ID]))
    engine.abort("gone")
    engine.check_integrity()
    assert "gone" not in dict(engine.step())


async def test_the_async_engine_resumes_and_ends() -> None:
    whole = undisturbed(PROMPT, PARAMS)
    engine = AsyncEngine(sampling_engine())
    for num_told in (3, len(whole.token_ids)):
        rest = Told()
        request = EngineRequest("a", PROMPT, PARAMS, output_ids=whole.token_ids[:num_told])
        async for delta in engine.generate(request):
            rest.add(delta)
        check_rest(rest, whole, num_told)
    engine.close()


class Forgetful(SamplingFake):
    """A fault: it draws as if the reply began anew."""

    def _sample(self, histories: Any, rows: Any) -> Any:
        return super()._sample(histories, [replace(row, position=row.position % 3) for row in rows])


def test_a_draw_at_another_position_is_noticed() -> None:
    whole = undisturbed(PROMPT, replace(PARAMS, ignore_eos=True))
    engine = sampling_engine(executor=Forgetful)
    request = EngineRequest(
        "a", PROMPT, replace(PARAMS, ignore_eos=True), output_ids=whole.token_ids[:4]
    )
    (rest,) = told_by(engine, request)
    with pytest.raises(AssertionError):
        check_rest(rest, whole, 4)
