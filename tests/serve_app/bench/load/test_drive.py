"""Requests enter the engine at their arrival times; token times come from its clock."""

import pytest

from serve_app.bench.engine_bench import steady_step_s
from serve_app.bench.load.drive import BenchRequest, Trace, drive, end_s, greedy
from tests.serve_app.bench.fake_engine import FakeEngine


def run(engine: FakeEngine, *requests: BenchRequest) -> list[Trace]:
    return drive(engine, requests, engine.now, engine.sleep)


def test_requests_without_arrival_times_start_together() -> None:
    traces = run(FakeEngine(), *(BenchRequest([1], greedy(n)) for n in (3, 1, 2)))
    assert [trace.token_times for trace in traces] == [[1, 2, 3], [1], [1, 2]]
    assert [trace.token_ids for trace in traces] == [[7] * 3, [7], [7] * 2]
    assert end_s(traces) == 3


def test_arrival_times_hold_whatever_the_order_of_requests() -> None:
    engine = FakeEngine()
    late, early = BenchRequest([1], greedy(2), 10.5), BenchRequest([2], greedy(2), 1.0)
    traces = run(engine, late, early)
    assert [trace.token_times for trace in traces] == [[11.5, 12.5], [2.0, 3.0]]
    assert [trace.ttft_s for trace in traces] == [1.0, 1.0]
    assert engine.slept == [1.0, 7.5]


def test_a_request_that_arrives_during_a_step_waits_for_its_end() -> None:
    traces = run(FakeEngine(), BenchRequest([1], greedy(3)), BenchRequest([2], greedy(1), 0.25))
    assert traces[1].ttft_s == 1.75


def test_a_full_engine_delays_requests() -> None:
    traces = run(FakeEngine(max_requests=1), *(BenchRequest([n], greedy(2)) for n in range(3)))
    assert [trace.token_times for trace in traces] == [[1, 2], [3, 4], [5, 6]]


def test_inter_token_latencies() -> None:
    trace = Trace(BenchRequest([1], greedy(4)), token_times=[1.0, 1.5, 1.5, 3.0])
    assert trace.gaps_s == [0.5, 0.0, 1.5]


@pytest.mark.parametrize(
    ("times", "step_s"),
    [
        ([[1.0, 2.0, 3.0, 4.0]], 1.0),
        # The second starts two steps later and the first ends earlier: both decode from 3 to 7.
        ([[1.0, 2.0, 3.0, 5.0, 7.0], [3.0, 5.0, 7.0, 8.0, 9.0]], 2.0),
        ([[1.0, 2.0], [3.0, 4.0]], 0.0),
    ],
)
def test_the_steady_step_is_taken_while_all_decode(times: list[list[float]], step_s: float) -> None:
    request = BenchRequest([1], greedy(9))
    traces = [Trace(request, [], one, [time * 0.75 for time in one]) for one in times]
    assert steady_step_s(traces) == pytest.approx((step_s, step_s / 4))
