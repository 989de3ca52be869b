"""What is noted of a reply, on a clock of the test."""

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import generate_latest

from serve_app.chat.events import Delta, Done, Thoughts, Usage
from serve_app.observe.turns import TurnMetrics
from serve_app.prompt.exchange import Exchange, TurnEnd
from serve_app.watch import Watched
from tests.serve_app.observe.samples import Samples


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> TurnMetrics:
    return TurnMetrics("moss", 100, clock)


def read(metrics: TurnMetrics) -> Samples:
    return Samples(generate_latest(metrics.registry).decode())


def delta(*token_ids: int) -> Delta:
    return Delta(0, "x", token_ids, ())


def done(reason: TurnEnd = "stop") -> Done:
    return Done(0, reason, Usage(20, 0, 6, 2), 0, Exchange("u", "", "", "", "x"))


def leave(error: BaseException) -> Callable[[TurnMetrics, Watched], None]:
    def run(metrics: TurnMetrics, watched: Watched) -> None:
        with pytest.raises(type(error)), metrics.watch(watched) as note:
            note(delta(1))
            raise error

    return run


def test_latencies_are_of_tokens_and_weighed(metrics: TurnMetrics, clock: Clock) -> None:
    with metrics.watch(Watched(1)) as note:
        clock.now += 0.4
        note(Thoughts(0, "hm"))
        clock.now += 0.3
        note(delta(1))
        clock.now += 0.06
        note(delta(2, 3, 4))
        note(delta())
        clock.now += 0.24
        note(done())
    samples = read(metrics)
    assert samples.get("vllm:time_to_first_token_seconds_sum") == pytest.approx(0.7)
    assert samples.get("vllm:inter_token_latency_seconds_count") == 3
    assert samples.get("vllm:inter_token_latency_seconds_sum") == pytest.approx(0.06)
    assert samples.get("vllm:inter_token_latency_seconds_bucket", le="0.01") == 0
    assert samples.get("vllm:inter_token_latency_seconds_bucket", le="0.025") == 3
    assert samples.get("vllm:e2e_request_latency_seconds_sum") == pytest.approx(1.0)
    assert samples.get("vllm:request_prompt_tokens_bucket", le="20.0") == 1
    assert samples.get("vllm:request_prompt_tokens_bucket", le="10.0") == 0


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError()])
def test_a_stateless_reply_that_is_left_is_cancelled(
    metrics: TurnMetrics, error: BaseException
) -> None:
    leave(error)(metrics, Watched(1))
    assert read(metrics).get("moss:cancelled_total") == 1


def test_a_live_turn_that_moves_counts_where_it_ends(metrics: TurnMetrics) -> None:
    leave(asyncio.CancelledError())(metrics, Watched(1, "uid", stop=asyncio.Event()))
    assert read(metrics).get("moss:cancelled_total") == 0
    with metrics.watch(Watched(1, "uid", is_resumed=True, stop=asyncio.Event())) as note:
        note(delta(2))
        note(done())
    samples = read(metrics)
    assert samples.get("vllm:request_success_total", finished_reason="stop") == 1
    assert samples.get("vllm:time_to_first_token_seconds_count") == 1, "of the run before"
    assert samples.get("vllm:e2e_request_latency_seconds_count") == 0, "it began elsewhere"


def test_a_live_turn_that_is_stopped_is_cancelled(metrics: TurnMetrics) -> None:
    stop = asyncio.Event()
    stop.set()
    leave(asyncio.CancelledError())(metrics, Watched(1, "uid", stop=stop))
    with metrics.watch(Watched(1, "uid", stop=stop)) as note:
        note(done("cancelled"))
    samples = read(metrics)
    assert samples.get("moss:cancelled_total") == 2
    assert samples.get("vllm:request_success_total", finished_reason="abort") == 1


def test_a_failed_reply_is_neither(metrics: TurnMetrics) -> None:
    leave(ValueError())(metrics, Watched(1))
    samples = read(metrics)
    assert samples.get("moss:cancelled_total") == 0
    assert samples.get("vllm:e2e_request_latency_seconds_count") == 0
    assert samples.get("moss:sessions_active") == 0
