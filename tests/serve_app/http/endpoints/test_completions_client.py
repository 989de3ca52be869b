"""openai-python, unmodified, on `/v1/completions` over real connections."""

from collections.abc import AsyncIterator

import openai
import pytest

from moss_tp import LLM, SamplingParams
from serve_app.http.app import create_http_app
from tests.serve_app.http.endpoints.sites.engine_site import EngineSite
from tests.support.http_server import serving

PARAMS = SamplingParams(temperature=0, repetition_penalty=1, ignore_eos=True, max_tokens=8)


@pytest.fixture
async def client(raw: EngineSite) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serving(create_http_app(raw.service)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as opened,
    ):
        yield opened


async def test_whole(client: openai.AsyncOpenAI, raw: EngineSite, llm: LLM) -> None:
    answer = await client.completions.create(
        model="moss-nano",
        prompt=["the", "in"],
        temperature=0,
        max_tokens=8,
        echo=True,
        logprobs=2,
        extra_body={"ignore_eos": True},
    )
    expected = llm.generate(["the", "in"], PARAMS)
    assert [choice.text for choice in answer.choices] == [
        prompt + reply.text for prompt, reply in zip(("the", "in"), expected, strict=True)
    ]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.tokens is not None
    assert len(logprobs.tokens) == len(logprobs.token_logprobs)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


async def test_stream(client: openai.AsyncOpenAI, llm: LLM) -> None:
    chunks = await client.completions.create(
        model="moss-nano",
        prompt=[5, 6, 7],
        temperature=0,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    texts, reasons, usages = [], [], []
    async for chunk in chunks:
        texts += [choice.text for choice in chunk.choices]
        reasons += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
        usages += [chunk.usage] if chunk.usage else []
    (expected,) = llm.generate([[5, 6, 7]], PARAMS)
    assert "".join(texts) == expected.text
    assert reasons == ["length"]
    (usage,) = usages
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 8)


async def test_errors(client: openai.AsyncOpenAI) -> None:
    create = client.completions.create
    with pytest.raises(openai.BadRequestError) as refused:
        await create(model="moss-nano", prompt="a", suffix="b")
    assert refused.value.param == "suffix"
    assert refused.value.code == "unsupported_parameter"
    with pytest.raises(openai.BadRequestError) as too_long:
        await create(model="moss-nano", prompt=[5] * 500, stream=True)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        await create(model="gpt-4", prompt="a")
