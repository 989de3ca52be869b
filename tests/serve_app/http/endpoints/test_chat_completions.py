"""Chat completions over the application: whole answers and streams."""

from plugins_svc.sdk.output import Item, PluginOutput
from serve_app.api.openai.chat_answer import ChatCompletion
from tests.serve_app.http.clients import client_of
from tests.serve_app.http.endpoints.sites.chat_site import USER, complete, stream, text_of
from tests.support.chat_fakes import CharCodec, think_of
from tests.support.site import Site

NUM_THOUGHTS = len(CharCodec().spell(" Nothing to do.<eot>\n<|Commands|>: None<eoc>"))
NUM_REPLY = len(CharCodec().spell(" turn 1<eom>"))


async def test_an_answer_has_openais_form(site: Site) -> None:
    site.model.num_cached_tokens = 7
    answer = (await complete(site, user="someone", unknown={"field": 1})).json()
    ChatCompletion.model_validate(answer, extra="forbid")
    assert answer["id"].startswith("chatcmpl-") and answer["model"] == "moss-nano"
    (choice,) = answer["choices"]
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "turn 1",
            "refusal": None,
            "reasoning": "Nothing to do.",
            "reasoning_content": "Nothing to do.",
        },
        "logprobs": None,
        "finish_reason": "stop",
    }
    num_prompt = len(site.model.prompt_ids[0])
    num_results = len(CharCodec().spell("<|Results|>:\nNone\n<eor>\n<|MOSS|>:"))
    assert answer["usage"] == {
        "prompt_tokens": num_prompt + num_results,
        "completion_tokens": NUM_THOUGHTS + NUM_REPLY,
        "total_tokens": num_prompt + num_results + NUM_THOUGHTS + NUM_REPLY,
        "prompt_tokens_details": {"cached_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": NUM_THOUGHTS},
    }


async def test_a_stream_begins_with_the_role_and_ends_with_reason_and_usage(site: Site) -> None:
    chunks = await stream(site, stream_options={"include_usage": True})
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    *with_choices, usage = chunks
    deltas = [chunk["choices"][0]["delta"] for chunk in with_choices]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in with_choices]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert all(chunk["usage"] is None for chunk in with_choices)
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == NUM_THOUGHTS + 8
    assert text_of(chunks) == "turn 1" and text_of(chunks, "reasoning") == "Nothing to do."
    assert all("usage" not in chunk for chunk in await stream(site))


async def test_a_stream_and_an_answer_agree(site: Site) -> None:
    site.model.think = think_of('Calculate("1+1")')
    site.plugins.answers["1+1"] = PluginOutput(True, ("2",))
    (choice,) = (await complete(site)).json()["choices"]
    chunks = await stream(site)
    assert text_of(chunks) == choice["message"]["content"]
    assert text_of(chunks, "reasoning_content") == choice["message"]["reasoning"]
    calls = [call for c in chunks for call in c["choices"][0]["delta"].get("plugin_calls", ())]
    assert [call["state"] for call in calls] == ["started", "done"]
    (call,) = choice["message"]["plugin_calls"]
    assert (call["name"], call["argument"], call["output"]) == ("Calculate", "1+1", "2")
    assert calls[1].keys() == call.keys()


async def test_items_of_a_search_are_told(site: Site) -> None:
    client = client_of(site, plugins=frozenset({"web_search"}))
    site.model.think = think_of('Search("a")')
    site.plugins.answers["a"] = PluginOutput(True, items=(Item("T", "u", "text"),))
    response = await client.post("/v1/chat/completions", json={"messages": [USER]})
    (call,) = response.json()["choices"][0]["message"]["plugin_calls"]
    assert call["output"] == [{"n": 1, "title": "T", "url": "u", "snippet": "text"}]


async def test_n_choices_share_one_prompt(site: Site) -> None:
    answer = (await complete(site, n=3, seed=-5)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 3 * (NUM_THOUGHTS + NUM_REPLY)
    one = (await complete(site)).json()
    more = 2 * len(CharCodec().spell("<|Results|>:\nNone\n<eor>\n<|MOSS|>:"))
    assert answer["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"] + more
    chunks = await stream(site, n=2)
    roles = [c["choices"][0]["index"] for c in chunks if "role" in c["choices"][0]["delta"]]
    assert sorted(roles) == [0, 1]
    assert [text_of(chunks, index=index) for index in (0, 1)] == ["turn 1"] * 2


async def test_logprobs_are_the_tokens_as_sampled(site: Site) -> None:
    (choice,) = (await complete(site, logprobs=True, top_logprobs=0)).json()["choices"]
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == " turn 1<eom>"
    first = {"token": " ", "logprob": -0.5, "bytes": [32], "top_logprobs": []}
    assert content[0] == first and choice["logprobs"]["refusal"] is None
    chunks = await stream(site, logprobs=True)
    told = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    assert [entry for each in told for entry in each["content"]] == content


async def test_sampling_fields_reach_the_passes(site: Site) -> None:
    body = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "presence_penalty": -1,
        "frequency_penalty": 2.0,
        "logit_bias": {"200": -100},
        "seed": 3,
        "stop": "never",
        "stop_token_ids": [9],
        "min_tokens": 2,
        "ignore_eos": False,
        "max_tokens": 5,
        "max_completion_tokens": 60,
    }
    answer = (await complete(site, **body)).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    thoughts, reply = site.model.params
    for params in (thoughts, reply):
        assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 0)
        assert (params.min_p, params.repetition_penalty) == (0.1, 1.5)
    assert thoughts.max_tokens == 30 and thoughts.presence_penalty == 0 and not thoughts.stop
    assert (reply.presence_penalty, reply.frequency_penalty) == (-1, 2)
    assert reply.logit_bias == ((200, -100),) and reply.stop == ("never",)
    assert (reply.min_tokens, reply.max_tokens) == (2, 5) and 9 in reply.stop_token_ids
    repeated = (await complete(site, **body)).json()
    assert repeated["choices"] == answer["choices"]
    assert site.model.params[2:] == [thoughts, reply], "a seed makes it the same"


async def test_messages_become_a_prompt(site: Site) -> None:
    await complete(
        site,
        {"role": "system", "content": "Speak French."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": "hello", "reasoning": "Greet."},
        USER,
    )
    shared = site.model.requests[0].num_shared_tokens
    assert site.model.prompts[0][shared:] == (
        "Speak French.\n<|Human|>: hi<eoh>\n<|Inner Thoughts|>: Greet.<eot>\n"
        "<|Commands|>: None<eoc>\n<|Results|>:\nNone\n<eor>\n<|MOSS|>: hello<eom>\n"
        "<|Human|>: 你好<eoh>\n<|Inner Thoughts|>:"
    )


async def test_whole_oldest_exchanges_are_dropped(site: Site) -> None:
    old = [{"role": r, "content": "x" * 900} for _ in range(3) for r in ("user", "assistant")]
    answer = (await complete(site, *old, USER)).json()
    assert answer["dropped_turns"] == 2
    assert (await stream(site, *old, USER))[-1]["dropped_turns"] == 2
