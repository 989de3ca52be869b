"""Requests are put when they are due, and their tokens' times are the engine's."""

import pytest

from serve_app.bench.drive import BenchRequest, Trace, drive, end_s, greedy
from serve_app.bench.engine_bench import steady_step_s
from tests.serve_app.bench.fake_engine import FakeEngine


def run(engine: FakeEngine, *requests: BenchRequest) -> list[Trace]:
    return drive(engine, requests, engine.now, engine.sleep)


def test_all_at_once() -> None:
    traces = run(FakeEngine(), *(BenchRequest([1], greedy(n)) for n in (3, 1, 2)))
    assert [trace.token_times for trace in traces] == [[1, 2, 3], [1], [1, 2]]
    assert [trace.token_ids for trace in traces] == [[7] * 3, [7], [7] * 2]
    assert end_s(traces) == 3


def test_arrivals_are_kept_whatever_order_they_are_given_in() -> None:
    engine = FakeEngine()
    late, early = BenchRequest([1], greedy(2), 10.5), BenchRequest([2], greedy(2), 1.0)
    traces = run(engine, late, early)
    assert [trace.token_times for trace in traces] == [[11.5, 12.5], [2.0, 3.0]]
    assert [trace.ttft_s for trace in traces] == [1.0, 1.0]
    assert engine.slept == [1.0, 7.5]


def test_who_arrives_during_a_step_waits_for_its_end() -> None:
    traces = run(FakeEngine(), BenchRequest([1], greedy(3)), BenchRequest([2], greedy(1), 0.25))
    assert traces[1].ttft_s == 1.75


def test_a_full_engine_is_waited_for() -> None:
    traces = run(FakeEngine(seats=1), *(BenchRequest([n], greedy(2)) for n in range(3)))
    assert [trace.token_times for trace in traces] == [[1, 2], [3, 4], [5, 6]]


def test_gaps() -> None:
    trace = Trace(BenchRequest([1], greedy(4)), token_times=[1.0, 1.5, 1.5, 3.0])
    assert trace.gaps_s == [0.5, 0.0, 1.5]


@pytest.mark.parametrize(
    ("times", "step_s"),
    [
        ([[1.0, 2.0, 3.0, 4.0]], 1.0),
        # The second comes two steps later and the first leaves earlier: 3, 5 and 7 are shared.
        ([[1.0, 2.0, 3.0, 5.0, 7.0], [3.0, 5.0, 7.0, 8.0, 9.0]], 2.0),
        ([[1.0, 2.0], [3.0, 4.0]], 0.0),
    ],
)
def test_the_steady_step_is_seen_while_all_decode(times: list[list[float]], step_s: float) -> None:
    request = BenchRequest([1], greedy(9))
    traces = [Trace(request, [], one, [time * 0.75 for time in one]) for one in times]
    assert steady_step_s(traces) == pytest.approx((step_s, step_s / 4))
