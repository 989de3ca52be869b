"""Workloads match their spec and depend on the seed alone."""

from random import Random

from serve_app.bench.load.workload import MixedSpec, mixed_lengths, mixed_requests, same_requests


def test_mixed_lengths_stay_in_range_and_follow_the_seed() -> None:
    spec = MixedSpec(num_requests=500, prompt=(16, 20), output=(3, 5))
    lengths = mixed_lengths(spec, seed=4)
    assert {prompt for prompt, _ in lengths} == {16, 17, 18, 19, 20}
    assert {output for _, output in lengths} == {3, 4, 5}
    assert mixed_lengths(spec, 4) == lengths
    assert mixed_lengths(spec, 5) != lengths


def test_a_second_run_has_the_same_lengths_but_new_ids() -> None:
    spec, random = MixedSpec(num_requests=9), Random(1)
    first, second = (mixed_requests(spec, 4, random, 50_000) for _ in range(2))
    sizes = [[(len(r.prompt_ids), r.params.max_tokens) for r in once] for once in (first, second)]
    assert sizes[0] == sizes[1] == mixed_lengths(spec, 4)
    assert all(a.prompt_ids[:8] != b.prompt_ids[:8] for a, b in zip(first, second, strict=True))
    assert {request.arrival_s for request in first} == {0.0}


def test_poisson_arrivals_have_the_given_rate() -> None:
    spec = MixedSpec(num_requests=2000, prompt=(1, 1), output=(1, 1), rate=4)
    arrivals = [request.arrival_s for request in mixed_requests(spec, 0, Random(0), 10)]
    assert arrivals == sorted(arrivals)
    assert 0.9 < 2000 / 4 / arrivals[-1] < 1.1


def test_ids_cover_the_vocabulary_and_replies_do_not_end_early() -> None:
    requests = same_requests(Random(0), 3, 200, 5, vocab_size=6)
    assert {i for request in requests for i in request.prompt_ids} == set(range(6))
    assert all(request.params.ignore_eos and request.params.is_greedy for request in requests)
