"""`POST /v1/completions` says what the model says, in OpenAI's form, whole and as a stream."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from moss_tp import LLM, SamplingParams
from moss_tp.engine.outputs import RequestOutput
from tests.serve_app.http.clients import assert_error
from tests.serve_app.http.endpoints.conftest import MAX_MODEL_LEN
from tests.serve_app.http.endpoints.sites.engine_site import EngineSite
from tests.support.tiny_moss import BOS_ID, EOS_ID

PROMPT = "the 你好 in <eom>"
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True, "max_tokens": 6}
PARAMS = SamplingParams(temperature=0, repetition_penalty=1, ignore_eos=True, max_tokens=6)
NEUTRAL = SamplingParams(temperature=1, top_p=1, top_k=0, repetition_penalty=1, max_tokens=16)


async def post(raw: EngineSite, prompt: object, **fields: Any) -> httpx.Response:
    return await raw.client.post("/v1/completions", json={"prompt": prompt, **fields})


async def complete(raw: EngineSite, prompt: object, **fields: Any) -> dict[str, Any]:
    response = await post(raw, prompt, **{**GREEDY, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def stream(raw: EngineSite, prompt: object, **fields: Any) -> list[dict[str, Any]]:
    response = await post(raw, prompt, stream=True, **{**GREEDY, **fields})
    *events, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def one(llm: LLM, prompt: str | list[int], params: SamplingParams = PARAMS) -> RequestOutput:
    return llm.generate([prompt], params)[0]


async def test_a_text_is_completed_as_it_is(raw: EngineSite, llm: LLM) -> None:
    """Without a template, and a special token in it is text."""
    answer = await complete(raw, PROMPT)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "moss-nano"
    (choice,) = answer["choices"]
    expected = one(llm, PROMPT)
    assert choice == {
        "index": 0,
        "text": expected.text,
        "logprobs": None,
        "finish_reason": "length",
    }
    assert list(raw.model.requests[0].prompt_ids) == raw.tokenizer.encode(PROMPT)
    assert EOS_ID not in raw.model.requests[0].prompt_ids
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (expected.num_prompt_tokens, 6)
    assert usage["total_tokens"] == expected.num_prompt_tokens + 6


async def test_prompts_of_every_form(raw: EngineSite, llm: LLM) -> None:
    ids = [[5, 6, 7], [BOS_ID, 9]]
    texts = ["the", "in you"]
    assert (await complete(raw, ids[0]))["choices"][0]["text"] == one(llm, ids[0]).text
    for prompts in (ids, texts):
        answer = await complete(raw, prompts)
        assert [choice["index"] for choice in answer["choices"]] == [0, 1]
        expected = llm.generate(prompts, PARAMS)
        assert [c["text"] for c in answer["choices"]] == [reply.text for reply in expected]
        num_prompt = sum(reply.num_prompt_tokens for reply in expected)
        assert answer["usage"]["prompt_tokens"] == num_prompt
        assert answer["usage"]["completion_tokens"] == 12


async def test_choices_are_numbered_prompt_by_prompt(raw: EngineSite, llm: LLM) -> None:
    """And do not depend on the prompts beside theirs."""
    fields = {"temperature": 1.5, "seed": 7, "n": 2, "best_of": 2, "top_k": 40, "top_p": 0.9}
    answer = await complete(raw, ["the", "in"], **fields)
    params = SamplingParams(
        temperature=1.5, seed=7, n=2, top_p=0.9, repetition_penalty=1, ignore_eos=True, max_tokens=6
    )
    expected = [
        part.text for reply in llm.generate(["the", "in"], params) for part in reply.outputs
    ]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert len(set(expected)) == 4
    alone = await complete(raw, "in", **fields)
    assert [choice["text"] for choice in alone["choices"]] == expected[2:]
    assert alone["usage"]["prompt_tokens"] == len(raw.tokenizer.encode("in")), "once"


async def test_defaults_are_those_of_a_model_and_not_of_a_chat(raw: EngineSite) -> None:
    response = await post(raw, "the")
    assert response.status_code == 200
    params = raw.model.requests[0].params
    assert params == NEUTRAL
    await post(raw, "the", temperature=0.5, repetition_penalty=1.2, top_k=-1, top_p=0.3)
    params = raw.model.requests[1].params
    assert (params.temperature, params.repetition_penalty) == (0.5, 1.2)
    assert (params.top_k, params.top_p) == (0, 0.3)


@pytest.mark.parametrize("prompt", [PROMPT, [5, 6, BOS_ID, 7], "t"])
@pytest.mark.parametrize("count", [0, 3])
async def test_an_echo_with_log_probabilities(
    raw: EngineSite, llm: LLM, prompt: str | list[int], count: int
) -> None:
    ids = raw.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    shown = raw.tokenizer.decode(ids, skip_special=False)
    params = SamplingParams(
        temperature=0,
        repetition_penalty=1,
        ignore_eos=True,
        max_tokens=6,
        logprobs=count,
        prompt_logprobs=count,
    )
    expected = one(llm, prompt, params)
    answer = await complete(raw, prompt, echo=True, logprobs=count)
    (choice,) = answer["choices"]
    assert choice["text"] == shown + expected.text
    found = choice["logprobs"]
    tokens = [*(expected.prompt_logprobs or []), *(expected.logprobs or [])]
    assert found["token_logprobs"] == [None, *(token.logprob for token in tokens)]
    assert found["top_logprobs"][0] is None
    assert len(found["tokens"]) == len(found["text_offset"]) == len(ids) + 6
    for token, logprob, top in zip(
        found["tokens"][1:], found["token_logprobs"][1:], found["top_logprobs"][1:], strict=True
    ):
        assert top[token] >= logprob
        assert count - 5 <= len(top) <= count + 1, "five ids have no text"
    assert found["text_offset"][0] == 0
    assert found["text_offset"] == sorted(found["text_offset"])


async def test_tokens_and_offsets_tell_the_text(raw: EngineSite) -> None:
    """A token of part of a character is its bytes, and begins where the character does."""
    answer = await complete(raw, "a 你们", echo=True, logprobs=0, max_tokens=0)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a 你们", "length")
    found = choice["logprobs"]
    assert found["tokens"][:2] == ["a", " "]
    assert found["tokens"][2] == "你"
    assert found["tokens"][3] == "bytes:\\xe4"
    assert found["text_offset"] == [0, 1, 2, 3, 3, 3]
    assert answer["usage"]["completion_tokens"] == 0
    whole = b"".join(
        bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
        if token.startswith("bytes:")
        else token.encode()
        for token in found["tokens"]
    )
    assert whole.decode() == "a 你们"


async def test_as_lm_eval_reads_it(raw: EngineSite, llm: LLM) -> None:
    """It asks for one token, and drops it; the greedy continuation is the best of each place."""
    context = raw.tokenizer.encode("the in")
    for reply, is_greedy in ((one(llm, context).token_ids, True), ([7, 8, 9], False)):
        ids = [*context, *reply]
        (choice,) = (await complete(raw, ids, max_tokens=1, logprobs=1, echo=True))["choices"]
        values = choice["logprobs"]["token_logprobs"][len(context) : -1]
        top = choice["logprobs"]["top_logprobs"][len(context) : -1]
        assert len(values) == len(reply)
        assert all(v == max(t.values()) for v, t in zip(values, top, strict=True)) == is_greedy


async def test_an_echo_alone_runs_no_reply(raw: EngineSite) -> None:
    answer = await complete(raw, ["the", "in"], echo=True, max_tokens=0, n=2)
    assert [choice["text"] for choice in answer["choices"]] == ["the", "the", "in", "in"]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"echo": True},
        {"echo": True, "logprobs": 2},
        {"logprobs": 2, "n": 2, "temperature": 1, "seed": 3},
        {"echo": True, "logprobs": 1, "n": 2, "temperature": 1, "seed": 3},
        {"echo": True, "logprobs": 1, "max_tokens": 0},
        {"stop": ["e"]},
    ],
)
async def test_a_stream_is_the_whole_answer_in_parts(
    raw: EngineSite, fields: dict[str, Any]
) -> None:
    prompts = ["the 你好", "in"]
    whole = await complete(raw, prompts, **fields)
    chunks = await stream(raw, prompts, stream_options={"include_usage": True}, **fields)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    *parts, last = chunks
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None for chunk in parts)
    for choice in whole["choices"]:
        own = [c for chunk in parts for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        assert [part["finish_reason"] for part in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        for name in choice["logprobs"] or ():
            told = [value for part in own for value in (part["logprobs"] or {}).get(name, [])]
            assert told == choice["logprobs"][name]
        if fields.get("echo"):
            assert own[0]["text"] == prompts[choice["index"] // fields.get("n", 1)]
    assert all("usage" not in chunk for chunk in await stream(raw, "the"))


async def test_a_stop_string_is_cut_off(raw: EngineSite, llm: LLM) -> None:
    text = one(llm, "the").text
    middle = text[len(text) // 2]
    (choice,) = (await complete(raw, "the", stop=middle))["choices"]
    assert choice["text"] == text[: text.index(middle)]
    assert choice["finish_reason"] == "stop"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt"),
    ({"prompt": ["a", [1]]}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": [1.0]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [2**31]}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": {"text": "a"}}, "prompt"),
    ({"prompt": "a", "suffix": "b"}, "suffix"),
    ({"prompt": "a", "best_of": 2}, "best_of"),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
    ({"prompt": "a", "min_tokens": 17}, "min_tokens"),
    ({"prompt": "a", "logprobs": 21}, "logprobs"),
    ({"prompt": "a", "logprobs": True}, "logprobs"),
    ({"prompt": "a", "n": 129}, "n"),
    ({"prompt": ["a"] * 65, "n": 2}, "n"),
    ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
    ({"prompt": "a", "temperature": 11}, "temperature"),
    ({"prompt": "a", "guided_json": {"type": "object"}}, "guided_json"),
]


@pytest.mark.parametrize(("body", "param"), WRONG)
async def test_a_wrong_field_is_named(raw: EngineSite, body: dict[str, Any], param: str) -> None:
    response = await raw.client.post("/v1/completions", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert not raw.model.requests


async def test_a_prompt_beyond_the_context_or_the_vocabulary(raw: EngineSite) -> None:
    too_long = await post(raw, [5] * MAX_MODEL_LEN)
    assert_error(too_long, 400, "context_length_exceeded")
    assert_error(await post(raw, [5] * MAX_MODEL_LEN, stream=True), 400, "context_length_exceeded")
    scored = await complete(raw, [5] * MAX_MODEL_LEN, echo=True, logprobs=0, max_tokens=0)
    assert len(scored["choices"][0]["logprobs"]["tokens"]) == MAX_MODEL_LEN
    outside = await post(raw, [5, 277])
    assert outside.status_code == 400
    assert "277" in outside.json()["error"]["message"]
    (choice,) = (await complete(raw, [5] * (MAX_MODEL_LEN - 2), max_tokens=50))["choices"]
    assert choice["finish_reason"] == "length", "as long as there is room"


async def test_an_unknown_model(raw: EngineSite) -> None:
    assert_error(await post(raw, "the", model="other"), 404, "model_not_found")
    assert (await post(raw, "the", model="moss-nano")).status_code == 200


async def test_who_leaves_ends_the_work(raw: EngineSite) -> None:
    task = asyncio.create_task(post(raw, ["the"] * 8, max_tokens=100, ignore_eos=True, n=2))
    while not raw.model.engine.stats().running:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(30):
        while raw.model.engine.stats().running or raw.model.engine.stats().waiting:
            await asyncio.sleep(0.01)


async def test_prompts_of_an_owner_are_salted(raw: EngineSite) -> None:
    await post(raw, "the")
    (request,) = raw.model.requests
    assert (request.salt, request.num_shared_tokens) == ("demo", 0)
