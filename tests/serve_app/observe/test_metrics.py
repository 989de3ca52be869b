"""`/metrics` of an application over fakes: each dialect counts once, and so does each refusal."""

import asyncio

import pytest
from redis.asyncio import Redis

from plugins_svc.sdk.output import PluginOutput
from tests.serve_app.observe.samples import Samples
from tests.support.chat_fakes import think_of
from tests.support.site import Site

IDLE = {
    "vllm:request_success_total": None,
    "vllm:time_to_first_token_seconds_count": 0,
    "vllm:inter_token_latency_seconds_count": 0,
    "vllm:e2e_request_latency_seconds_count": 0,
    "vllm:request_prompt_tokens_count": 0,
    "vllm:request_generation_tokens_count": 0,
    "moss:cancelled_total": 0,
    "moss:sessions_active": 0,
    "moss:session_affinity_queries_total": 0,
    "moss:session_affinity_hits_total": 0,
    "moss:passes_resumed_total": 0,
}


@pytest.fixture(autouse=True)
async def nobody_else(store_url: str) -> None:
    """The store is that of all tests of this process, whose servers have other models."""
    async with Redis.from_url(store_url) as redis:
        await redis.flushdb()


async def read(site: Site) -> Samples:
    response = await site.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Samples(response.text)


def grown(before: Samples, after: Samples, name: str, **labels: str) -> float:
    return (after.get(name, **labels) or 0) - (before.get(name, **labels) or 0)


async def test_all_names_are_there_from_the_start(site: Site) -> None:
    samples = await read(site)
    for name, value in IDLE.items():
        if value is not None:
            assert samples.get(name) is not None, name
    assert samples.models == {"moss-nano"}
    assert "moss:tp_group_restarts_total" in samples.names
    assert not {name for name in samples.names if name.endswith("_created")}


async def test_a_turn_counts_once_whatever_its_passes(site: Site) -> None:
    before = await read(site)
    messages = [{"role": "user", "content": "hi"}]
    response = await site.client.post("/v1/chat/completions", json={"messages": messages})
    usage = response.json()["usage"]
    after = await read(site)
    assert grown(before, after, "vllm:request_success_total", finished_reason="stop") == 1
    assert grown(before, after, "vllm:time_to_first_token_seconds_count") == 1
    assert grown(before, after, "vllm:e2e_request_latency_seconds_count") == 1
    assert grown(before, after, "vllm:request_prompt_tokens_sum") == usage["prompt_tokens"]
    assert grown(before, after, "vllm:request_generation_tokens_sum") == usage["completion_tokens"]
    thought = usage["completion_tokens_details"]["reasoning_tokens"]
    reply_tokens = usage["completion_tokens"] - thought
    assert grown(before, after, "vllm:inter_token_latency_seconds_count") == reply_tokens - 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "n": 2}),
        ("/v1/completions", {"prompt": "ab", "max_tokens": 3}),
        ("/api/inference", {"request": "hi"}),
    ],
)
async def test_every_dialect_counts_once(site: Site, path: str, body: dict[str, object]) -> None:
    before = await read(site)
    response = await site.client.post(path, json=body)
    assert response.status_code == 200, response.text
    after = await read(site)
    assert grown(before, after, "vllm:e2e_request_latency_seconds_count") == 1
    ends = [
        grown(before, after, "vllm:request_success_total", finished_reason=reason)
        for reason in ("stop", "length")
    ]
    assert sum(ends) == 1


async def test_plugin_calls_count_by_outcome(site: Site) -> None:
    site.model.think = think_of('Calculate("1+1"), Calculate("2/0")')
    site.plugins.answers = {"1+1": PluginOutput(True, ("2",)), "2/0": ValueError("zero")}
    before = await read(site)
    await site.post(plugins=["calculator"])
    after = await read(site)
    for outcome in ("done", "failed"):
        labels = {"plugin": "Calculate", "outcome": outcome}
        assert grown(before, after, "moss:plugin_seconds_count", **labels) == 1, outcome


async def test_a_refusal_counts_by_its_code(site: Site) -> None:
    before = await read(site)
    site.service.drain.begin()
    assert (await site.post()).status_code == 503
    after = await read(site)
    assert grown(before, after, "moss:rejected_total", reason="draining") == 1
    assert grown(before, after, "vllm:e2e_request_latency_seconds_count") == 0


async def test_a_client_that_leaves_counts_as_cancelled(site: Site) -> None:
    begun, before = asyncio.Event(), await read(site)

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens:
            begun.set()
            await asyncio.sleep(60)

    site.model.wait = hang
    request = asyncio.create_task(site.post(stream=True))
    await begun.wait()
    assert grown(before, await read(site), "moss:sessions_active") == 1
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    after = await read(site)
    assert grown(before, after, "moss:cancelled_total") == 1
    assert grown(before, after, "moss:sessions_active") == 0
    assert grown(before, after, "vllm:e2e_request_latency_seconds_count") == 0


async def test_a_live_turn_counts_once_and_so_does_its_cancel(site: Site) -> None:
    uid = (await site.client.post("/v1/sessions", json={})).json()["id"]
    before = await read(site)
    path = f"/v1/sessions/{uid}/turns"
    told = await site.client.post(path, json={"user": "hi", "stream": True})
    assert told.status_code == 200, told.text
    after = await read(site)
    assert grown(before, after, "vllm:request_success_total", finished_reason="stop") == 1
    assert grown(before, after, "moss:cancelled_total") == 0
    begun = asyncio.Event()

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens:
            begun.set()
            await asyncio.sleep(60)

    site.model.wait = hang
    asking = asyncio.create_task(site.client.post(path, json={"user": "hi"}))
    await begun.wait()
    turn = site.model.requests[-1].request_id.split("-")[0]
    cancelled = await site.client.post(f"{path}/{turn}/cancel", json={"keep": False})
    assert cancelled.status_code == 200, cancelled.text
    assert (await asking).status_code == 409
    last = await read(site)
    assert grown(after, last, "moss:cancelled_total") == 1
    assert grown(after, last, "vllm:e2e_request_latency_seconds_count") == 0
    assert last.get("moss:sessions_active") == 0
