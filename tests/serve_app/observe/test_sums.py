"""Sums over the processes of a server, those that are there and those that are gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from moss_tp.engine.async_engine import EngineStats
from moss_tp.engine.scheduling.waits import Waits
from moss_tp.errors import MossError
from serve_app.observe import publisher
from serve_app.observe.board import Board, Reading
from serve_app.observe.engine import engine_metrics
from serve_app.observe.metrics import ServerMetrics
from serve_app.observe.publisher import Publisher
from serve_app.observe.scripts import KEYS
from serve_app.watch import Watched
from tests.serve_app.observe.samples import Samples
from tests.serve_app.store_server import StoreServer

PERIOD_S = 0.02


@pytest.fixture
async def url(server: StoreServer) -> AsyncIterator[str]:
    async with Redis.from_url(server.url) as raw:
        await raw.delete(*KEYS)
        yield server.url


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as closing:
        yield closing


def ingress(url: str, stack: AsyncExitStack) -> ServerMetrics:
    made = ServerMetrics(url, "moss", 1000, PERIOD_S)
    stack.push_async_callback(made.close)
    return made


def group(
    url: str, stack: AsyncExitStack, used: int, tokens: int, replica: str = "one"
) -> Publisher:
    waits = Waits()
    waits.note(1.2)
    stats = EngineStats(1, 2, 10 - used, 10, 5, 100, 40, tokens, 3, waits.counts())
    made = Publisher(url, "group", lambda: engine_metrics(stats, "moss", replica), PERIOD_S)
    stack.push_async_callback(made.stop)
    return made


async def read(metrics: ServerMetrics) -> Samples:
    return Samples((await metrics.text()).decode())


async def test_whoever_answers_says_the_same_sums(url: str, stack: AsyncExitStack) -> None:
    first, second = ingress(url, stack), ingress(url, stack)
    for metrics, times in ((first, 2), (second, 3)):
        for _ in range(times):
            metrics.note_rejected("queue_full")
    groups = [group(url, stack, *each) for each in ((2, 7, "one"), (6, 8, "two"))]
    for each in groups:
        await each.publish()
    await second.text()
    for metrics in (first, second):
        samples = await read(metrics)
        assert samples.get("moss:rejected_total", reason="queue_full") == 5
        for replica, usage in (("one", 0.2), ("two", 0.6)):
            assert samples.get("vllm:num_requests_running", replica=replica) == 1
            assert samples.get("vllm:num_requests_waiting", replica=replica) == 2
            assert samples.get("moss:kv_cache_blocks", replica=replica) == 10
            assert samples.get("vllm:kv_cache_usage_perc", replica=replica) == usage
        assert samples.get("vllm:prompt_tokens_total") == 200
        assert samples.get("vllm:generation_tokens_total") == 15
        assert samples.get("vllm:prefix_cache_queries_total") == 200
        assert samples.get("vllm:prefix_cache_hits_total") == 80
        assert samples.get("vllm:num_preemptions_total") == 6
        assert samples.get("vllm:request_queue_time_seconds_bucket", le="1.0") == 0
        assert samples.get("vllm:request_queue_time_seconds_bucket", le="1.5") == 2
        assert samples.get("vllm:request_queue_time_seconds_sum") == 2.4


async def test_of_a_process_that_is_gone_only_counters_count(
    url: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, here = ingress(url, stack), ingress(url, stack)
    gone.note_rejected("queue_full")
    with gone.watch(Watched(1, "uid")):
        await gone.text()
        assert (await read(here)).get("moss:sessions_active") == 1
        monkeypatch.setattr("serve_app.observe.board.STALE_MS", -1)
        samples = await read(here)
    assert samples.get("moss:sessions_active") is None
    assert samples.get("moss:rejected_total", reason="queue_full") == 1


async def test_a_lost_group_counts_as_one_restart_whoever_sees_it(
    url: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "SETTLE_ROUNDS", 3)
    watching = [ingress(url, stack), ingress(url, stack)]
    lost, ended = group(url, stack, 0, 5), group(url, stack, 0, 6)
    await lost.publish()
    await ended.publish()
    await asyncio.to_thread(ended.end)
    for metrics in watching:
        metrics.open()
    async with asyncio.timeout(30):
        while (await read(watching[0])).get("moss:tp_group_restarts_total") == 0:
            await asyncio.sleep(PERIOD_S)
    await asyncio.sleep(10 * PERIOD_S)
    samples = await read(watching[1])
    assert samples.get("moss:tp_group_restarts_total") == 1
    assert samples.get("vllm:generation_tokens_total") == 11


async def test_what_long_gone_processes_counted_becomes_one_entry(
    url: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "FOLD_ROUNDS", 3)
    watching = [ingress(url, stack), ingress(url, stack)]
    for tokens in (5, 6):
        await group(url, stack, 0, tokens).publish()
    for metrics in watching:
        metrics.open()
    board = Board(url)
    stack.push_async_callback(board.close)
    async with asyncio.timeout(30):
        while _kinds(await board.read()) != ["ended", "ingress", "ingress"]:
            await asyncio.sleep(PERIOD_S)
    samples = await read(watching[0])
    assert samples.get("vllm:generation_tokens_total") == 11
    assert samples.get("vllm:num_requests_running", replica="one") is None


def _kinds(reading: Reading) -> list[str]:
    return sorted(name.partition(":")[0] for name in reading.snapshots)


async def test_nothing_is_sent_without_a_change(url: str, stack: AsyncExitStack) -> None:
    metrics = ingress(url, stack)
    metrics.note_rejected("queue_full")
    await metrics.text()
    async with Redis.from_url(url) as raw:
        await raw.delete(KEYS[1])
        await metrics.text()
        assert not await raw.exists(KEYS[1])
        metrics.note_rejected("queue_full")
        await metrics.text()
        assert await raw.hlen(KEYS[1]) == 1


async def test_an_outage_of_the_store_is_one_line_and_no_restart(
    own_server: StoreServer,
    stack: AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("serve_app.observe.board.LIMIT_S", 0.1)
    monkeypatch.setattr(publisher, "SETTLE_ROUNDS", 20)
    watching, other = ingress(own_server.url, stack), group(own_server.url, stack, 0, 5)
    watching.open()
    other.start()
    await watching.text()
    with own_server.stopped():
        await asyncio.sleep(1)
        with pytest.raises(MossError):
            await watching.text()
    async with asyncio.timeout(30):
        while (await read(watching)).get("vllm:generation_tokens_total") is None:
            await asyncio.sleep(PERIOD_S)
    assert (await read(watching)).get("moss:tp_group_restarts_total") == 0
    lines = [record for record in caplog.records if "not published" in record.message]
    assert len(lines) == 2, "one of each process"
