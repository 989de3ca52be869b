"""OpenAI's Python client works as it is: answers, streams, tools, models, errors and retries."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from moss_tp.errors import EngineDeadError, QueueFullError
from plugins_svc.sdk.output import PluginOutput
from serve_app.errors import RateLimitError
from tests.serve_app.http.clients import client_of
from tests.serve_app.http.endpoints.sites.chat_site import WEATHER
from tests.serve_app.http.openai_site import MODEL, OpenAISite, openai_site
from tests.support.chat_fakes import FakeModel, think_of
from tests.support.fakes.gates import ANN, BOB
from tests.support.site import Site

USER: ChatCompletionMessageParam = {"role": "user", "content": "你好"}


@pytest.fixture
async def moss(site: Site) -> AsyncIterator[OpenAISite]:
    async with openai_site(site) as running:
        yield running


async def test_a_whole_answer(moss: OpenAISite) -> None:
    answer = await moss.ask(n=2, logprobs=True, top_logprobs=0, seed=1, user="u", stop=["x"])
    assert [choice.index for choice in answer.choices] == [0, 1]
    first = answer.choices[0]
    assert (first.message.content, first.finish_reason) == ("turn 1", "stop")
    assert first.message.model_extra is not None
    assert first.message.model_extra["reasoning"] == "Nothing to do."
    assert first.logprobs is not None and first.logprobs.content is not None
    assert "".join(token.token for token in first.logprobs.content) == " turn 1<eom>"
    usage = answer.usage
    assert usage is not None and usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 2 * 36
    assert usage.prompt_tokens_details is not None and answer._request_id


async def test_the_synchronous_client(moss: OpenAISite) -> None:
    def use(client: openai.OpenAI) -> tuple[str | None, str, list[str]]:
        answer = client.chat.completions.create(model=MODEL, messages=[USER])
        stream = client.chat.completions.create(model=MODEL, messages=[USER], stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        return answer.choices[0].message.content, text, [m.id for m in client.models.list()]

    assert await moss.in_thread(use) == ("turn 1", "turn 1", [MODEL])


async def test_a_stream(moss: OpenAISite) -> None:
    chunks = await moss.stream(stream_options={"include_usage": True})
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    *_, last, usage = chunks
    assert last.choices[0].finish_reason == "stop" and usage.choices == []
    assert usage.usage is not None and usage.usage.completion_tokens == 44
    told = (chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert "".join(told) == "turn 1"


async def test_the_stream_helper_adds_up(moss: OpenAISite) -> None:
    async with moss.client.chat.completions.stream(model=MODEL, messages=[USER], n=1) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "turn 1"
    assert final.choices[0].finish_reason == "stop"


async def test_a_stream_that_is_left_frees_the_engine(moss: OpenAISite) -> None:
    async def crawl(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(60 if is_reply and num_tokens == 3 else 0)

    moss.site.model.wait = crawl
    stream = await moss.client.chat.completions.create(model=MODEL, messages=[USER], stream=True)
    await anext(aiter(stream))
    await stream.close()
    async with asyncio.timeout(30):
        while moss.site.model.num_running:
            await asyncio.sleep(0.01)
    assert moss.gate.num_running == 0


async def test_plugins_by_extra_body(moss: OpenAISite) -> None:
    moss.site.model.think = think_of('Calculate("1+1")')
    moss.site.plugins.answers["1+1"] = PluginOutput(True, ("2",))
    answer = await moss.ask(extra_body={"plugins": ["calculator"], "top_k": 5, "min_p": 0.1})
    extra = answer.choices[0].message.model_extra
    assert extra is not None and extra["plugin_calls"][0]["output"] == "2"
    assert (moss.site.model.params[0].top_k, moss.site.model.params[0].min_p) == (5, 0.1)


async def test_a_session_by_extra_body(moss: OpenAISite) -> None:
    owned = client_of(moss.site, gate=moss.gate, requires_key=True)
    for key, is_owner in ((ANN, True), (BOB, False)):
        started = await owned.post("/", json={"prompt": "hi"}, headers={"apikey": key})
        body = {"session_id": started.json()["uid"]}
        if is_owner:
            answer = await moss.ask(extra_body=body)
            assert answer.choices[0].message.content == "turn 2"
            continue
        with pytest.raises(openai.NotFoundError) as raised:
            await moss.ask(extra_body=body)
        assert raised.value.code == "session_not_found"


async def test_a_tool_is_run_by_the_client(moss: OpenAISite) -> None:
    moss.site.model.think = think_of('get_weather("Paris")')
    tools: Any = [WEATHER]
    first = await moss.ask(tools=tools, tool_choice="auto")
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls" and message.tool_calls
    (call,) = message.tool_calls
    assert call.type == "function" and json.loads(call.function.arguments) == {"city": "Paris"}
    history: list[Any] = [
        USER,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    last = await moss.client.chat.completions.create(model=MODEL, messages=history, tools=tools)
    assert last.choices[0].message.content == "turn 1"
    assert 'get_weather("Paris") =>\nsunny\n' in moss.site.model.prompts[-1]


async def test_tool_calls_in_a_stream_add_up(moss: OpenAISite) -> None:
    moss.site.model.think = think_of('get_weather("Paris"), get_weather("Rome")')
    tools: Any = [WEATHER]
    async with moss.client.chat.completions.stream(
        model=MODEL, messages=[USER], tools=tools
    ) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    cities = [json.loads(call.function.arguments)["city"] for call in calls]
    assert cities == ["Paris", "Rome"] and len({call.id for call in calls}) == 2


async def test_models(moss: OpenAISite) -> None:
    (model,) = (await moss.client.models.list()).data
    assert model == await moss.client.models.retrieve(MODEL)
    assert model.model_extra is not None and model.model_extra["max_model_len"] == 4096
    with pytest.raises(openai.NotFoundError):
        await moss.client.models.retrieve("gpt-4")


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"temperature": -1}, openai.BadRequestError, "invalid_value"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, None),
        ({"text": "长" * 5000}, openai.BadRequestError, "context_length_exceeded"),
        ({"extra_headers": {"Authorization": "Bearer no"}}, openai.AuthenticationError, None),
    ],
)
async def test_errors_are_openais(
    moss: OpenAISite, options: dict[str, Any], kind: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(kind) as raised:
        await moss.ask(**options)
    assert code in (None, raised.value.code) and raised.value.request_id
    assert raised.value.type == "invalid_request_error"
    assert moss.site.model.prompts == [], "and nothing was sent again"


async def test_an_error_in_a_stream_is_raised(moss: OpenAISite) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            raise EngineDeadError("a rank is dead")

    moss.site.model.wait = fail
    with pytest.raises(openai.APIError, match="a rank is dead") as raised:
        await moss.stream()
    assert raised.value.code == "engine_error"


async def test_a_full_queue_is_tried_again(moss: OpenAISite) -> None:
    num_refused = 0

    async def refuse_once(is_reply: bool, num_tokens: int) -> None:
        nonlocal num_refused
        if not num_refused:
            num_refused += 1
            raise QueueFullError("full", 0.01)

    moss.site.model.wait = refuse_once
    assert (await moss.ask()).choices[0].message.content == "turn 1"
    assert len(moss.gate.admissions) == 2, "Retry-After is at least a second"


async def test_a_deadline_is_not(moss: OpenAISite) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(60)

    async with openai_site(moss.site, max_time_s=0.1) as hurried:
        moss.site.model.wait = hang
        with pytest.raises(openai.APIStatusError) as raised:
            await hurried.ask()
        assert raised.value.status_code == 408 and len(hurried.gate.admissions) == 1
    moss.site.model.wait = FakeModel().wait


async def test_a_limit_is_an_error_after_the_last_try(moss: OpenAISite) -> None:
    moss.gate.refusal = RateLimitError("slow down", 1)
    with pytest.raises(openai.RateLimitError) as raised:
        await moss.client.with_options(max_retries=0, api_key=BOB).chat.completions.create(
            model=MODEL, messages=[USER]
        )
    assert raised.value.code == "rate_limit_exceeded"
