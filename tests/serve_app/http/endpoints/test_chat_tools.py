"""Chat completions with a client's tools."""

import json

from serve_app.api.openai.chat_answer import ChatCompletion
from serve_app.chat.reply import create_replier
from serve_app.prompt.plain import PlainPromptBuilder
from tests.serve_app.http.clients import client_of
from tests.serve_app.http.endpoints.sites.chat_site import USER, WEATHER, complete, stream
from tests.support.chat_fakes import CharCodec, think_of
from tests.support.site import Site


async def test_tools_are_called_and_answered(site: Site) -> None:
    site.model.think = think_of('get_weather("Paris"), Calculate("1+1")')
    answer = (await complete(site, tools=[WEATHER])).json()
    ChatCompletion.model_validate(answer, extra="forbid")
    (choice,) = answer["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls" and message["content"] is None
    (call,) = message["tool_calls"]
    assert call["type"] == "function" and call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert answer["usage"]["completion_tokens"] == len(CharCodec().spell(site.model.think("")))
    result = {"role": "tool", "tool_call_id": call["id"], "content": "<|MOSS|>: sunny"}
    last = (await complete(site, USER, message, result, tools=[WEATHER])).json()
    assert last["choices"][0]["message"]["content"] == "turn 1"
    assert last["choices"][0]["finish_reason"] == "stop" and site.plugins.calls == []
    assert len(site.model.prompts) == 2, "the second request has one pass"
    assert '<|Results|>:\nget_weather("Paris") =>\n< |MOSS|>: sunny\n' in site.model.prompts[1]


async def test_tool_calls_in_a_stream(site: Site) -> None:
    site.model.think = think_of('get_weather("Paris"), get_weather("Rome")')
    for parallel, num_calls in ((True, 2), (False, 1)):
        chunks = await stream(site, tools=[WEATHER], parallel_tool_calls=parallel)
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        (calls,) = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
        assert [call["index"] for call in calls] == list(range(num_calls))
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_no_tool_is_offered_without_a_choice(site: Site) -> None:
    site.model.think = think_of('get_weather("Paris")')
    answer = (await complete(site, tools=[WEATHER], tool_choice="none")).json()
    assert answer["choices"][0]["message"]["content"] == "turn 1"
    assert "get_weather(" not in site.model.prompts[0]
    assert "Calculator: disabled" in site.model.prompts[0]


async def test_a_model_without_thoughts_has_no_tools(site: Site) -> None:
    prompts = PlainPromptBuilder(CharCodec(), "Be brief.\n")
    client = client_of(site, replier=create_replier(site.model, site.plugins, prompts))
    body = {"messages": [USER], "tools": [WEATHER]}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.json()["error"]["param"] == "tools"
    answer = (await client.post("/v1/chat/completions", json={"messages": [USER]})).json()
    assert "reasoning" not in answer["choices"][0]["message"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
