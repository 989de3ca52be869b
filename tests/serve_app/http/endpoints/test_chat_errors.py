"""Chat completions that are refused, fail or are abandoned; what keys and limits allow."""

import asyncio
import json
from typing import Any

import pytest

from moss_tp.errors import EngineDeadError
from serve_app.access.principal import Principal
from serve_app.errors import RateLimitError
from tests.serve_app.http.clients import client_of
from tests.serve_app.http.endpoints.sites.chat_site import USER, WEATHER, complete
from tests.support.fakes.gates import FakeGate
from tests.support.site import Site

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "messages", "invalid_value"),
    ({"messages": [{"role": "system", "content": "a"}]}, "messages", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "invalid_value"),
    ({"messages": [{"role": "god", "content": "a"}]}, "messages.0.role", "invalid_value"),
    (
        {"messages": [{"role": "tool", "tool_call_id": "c", "content": "a"}]},
        "messages.0.tool_call_id",
        "invalid_value",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.0.content.0",
        "unsupported_parameter",
    ),
    ({"n": 129}, "n", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"temperature": -1}, "temperature", "invalid_value"),
    ({"top_p": 0}, "top_p", "invalid_value"),
    ({"logit_bias": {"a": 1}}, "logit_bias.a", "invalid_value"),
    ({"logit_bias": {"1": 1, "01": 2}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"9999999999": 1}}, "logit_bias", "invalid_value"),
    ({"stop_token_ids": [5, 2**31 - 1]}, "stop_token_ids", "invalid_value"),
    ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"plugins": ["rm"]}, "plugins", "invalid_value"),
    ({"tools": [WEATHER], "plugins": ["calculator"]}, "plugins", "invalid_value"),
    ({"tools": [WEATHER, WEATHER]}, "tools", "invalid_value"),
    ({"tools": [{"type": "custom"}]}, "tools.0", "unsupported_parameter"),
    ({"tools": [{"type": "function"}]}, "tools.0.function", "invalid_value"),
    ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
    ({"tools": [WEATHER], "session_id": "0" * 32}, "tools", "unsupported_parameter"),
    ({"session_id": "0" * 32, "n": 2}, "n", "invalid_value"),
    ({"session_id": "0" * 32, "messages": [USER, USER]}, "messages", "invalid_value"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
]


@pytest.mark.parametrize(("body", "param", "code"), BAD)
async def test_a_bad_field_is_named(
    site: Site, body: dict[str, Any], param: str, code: str
) -> None:
    response = await site.client.post("/v1/chat/completions", json={"messages": [USER], **body})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert site.model.prompts == []


async def test_1000_stop_strings_are_refused(site: Site) -> None:
    assert (await complete(site, stop=["x"] * 1000)).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "text"}},
        {"functions": None, "modalities": ["text"], "audio": None},
        {"metadata": {"a": "b"}, "store": True, "reasoning_effort": "low", "x": [1]},
        {"tool_choice": "auto", "stop": None, "n": None, "stream": None, "logit_bias": None},
        {"tools": [], "stream_options": None, "model": "moss-nano", "seed": 2**63},
    ],
)
async def test_fields_that_change_nothing_are_taken(site: Site, fields: dict[str, Any]) -> None:
    response = await complete(site, **fields)
    assert response.status_code == 200, response.text


async def test_a_system_text_over_a_quarter_is_too_long(site: Site) -> None:
    response = await complete(site, {"role": "system", "content": "x" * 1025}, USER)
    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_an_error_after_the_first_byte_is_the_last_event(site: Site) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            raise EngineDeadError("a rank is dead")

    site.model.wait = fail
    response = await complete(site, stream=True)
    *_, last, rest = response.text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_error"
    assert rest == "" and "[DONE]" not in response.text


async def test_an_early_error_has_its_status(site: Site) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        raise EngineDeadError("a rank is dead")

    site.model.wait = fail
    assert (await complete(site, stream=True)).status_code == 500


async def test_a_key_bounds_models_and_plugins(site: Site) -> None:
    gate = FakeGate(
        {
            "a": Principal("a", "1", models=frozenset({"other"})),
            "b": Principal("b", "2", plugins=frozenset()),
        }
    )
    client = client_of(site, gate=gate, requires_key=True, model_names=("moss-nano", "other"))

    async def post(key: str, **body: Any) -> tuple[int, Any]:
        response = await client.post(
            "/v1/chat/completions", json={"messages": [USER], **body}, headers={"apikey": key}
        )
        return response.status_code, response.json()

    assert (await post("a"))[1]["model"] == "other"
    status, body = await post("a", model="moss-nano")
    assert (status, body["error"]["type"]) == (403, "permission_error")
    assert (await post("a", model="gpt-4"))[1]["error"]["code"] == "model_not_found"
    assert (await post("b", plugins=["calculator"]))[0] == 403
    assert (await post("b"))[0] == 200
    assert "Calculator: disabled." in site.model.prompts[-1]


@pytest.mark.parametrize(("key", "status"), [("a b", 400), ("a", 200)])
async def test_a_key_has_one_form_also_where_nothing_is_stored(
    site: Site, key: str, status: int
) -> None:
    response = await site.client.post(
        "/v1/chat/completions", json={"messages": [USER]}, headers={"Idempotency-Key": key}
    )
    assert response.status_code == status


async def test_work_is_admitted_and_settled(site: Site) -> None:
    gate = FakeGate()
    client = client_of(site, gate=gate, requires_key=True)
    headers = {"Authorization": "Bearer key-of-ann"}
    body = {"messages": [USER], "n": 2}
    answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    ((principal, admission),) = gate.admissions
    assert principal.owner == "ann" and site.model.requests[0].salt == "ann"
    assert admission.num_tokens == answer.json()["usage"]["total_tokens"]
    gate.refusal = RateLimitError("slow down", 7)
    for is_stream in (False, True):
        refused = await client.post(
            "/v1/chat/completions", json={**body, "stream": is_stream}, headers=headers
        )
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")


async def test_a_client_that_leaves_frees_the_engine(site: Site) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(60)

    site.model.wait = hang
    task = asyncio.create_task(complete(site, n=3))
    while not site.model.num_running:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert site.model.num_running == 0
