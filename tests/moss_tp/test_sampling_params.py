"""The ranges of sampling parameters, and their split into single replies."""

import math
from dataclasses import replace
from typing import Any

import pytest

from moss_tp.errors import InvalidRequestError
from moss_tp.sampling_params import SamplingParams, derive_seed

BAD: list[tuple[str, list[Any]]] = [
    ("temperature", [-0.1, 11, math.nan, math.inf]),
    ("top_p", [0, 1.1, math.nan]),
    ("top_k", [-1]),
    ("min_p", [-0.1, 1.1, math.nan]),
    ("repetition_penalty", [0, -1, 11, math.nan, math.inf]),
    ("presence_penalty", [-2.1, 2.1, math.nan]),
    ("frequency_penalty", [-2.1, 2.1, math.nan]),
    ("logit_bias", [((1, 101.0),), ((1, math.nan),), ((1, 1.0), (1, 2.0)), ((0, 0.0),) * 1025]),
    ("length_penalty", [0, -1, 11, math.nan]),
    ("regulation_start", [-1]),
    ("max_tokens", [0, -1]),
    ("min_tokens", [-1, 513]),
    ("max_time", [0, -1, math.nan, math.inf]),
    ("seed", [-1, 2**63]),
    ("stop", [("",), ("x" * 257,), tuple("abcdefghijklmnopq"), "stop"]),
    ("stop_token_ids", [(1,) * 65]),
    ("logprobs", [-1, 21]),
    ("n", [0, 129]),
]


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD for value in values]
)
def test_value_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{field} is "):
        SamplingParams(**{field: value})


def test_every_range_includes_its_ends() -> None:
    SamplingParams(
        temperature=0,
        top_p=1,
        top_k=0,
        min_p=1,
        repetition_penalty=10,
        presence_penalty=-2,
        frequency_penalty=2,
        logit_bias=((0, -100.0), (1, 100.0)),
        length_penalty=10,
        regulation_start=0,
        max_tokens=1,
        min_tokens=1,
        max_time=1e-3,
        seed=2**63 - 1,
        stop=("x" * 256,) * 16,
        stop_token_ids=(1,) * 64,
        logprobs=20,
        n=128,
    )


def test_split_derives_seeds_and_keeps_the_rest() -> None:
    first, second = SamplingParams(n=2, seed=2**63 - 1, top_k=7, stop=("a",)).split()
    assert first == SamplingParams(seed=2**63 - 1, top_k=7, stop=("a",))
    assert second == replace(first, seed=derive_seed(2**63 - 1, 1))
    assert [one.seed for one in SamplingParams(n=3).split()] == [None] * 3


def test_choices_of_neighbouring_seeds_share_no_seed() -> None:
    seeds = [one.seed for seed in range(50) for one in SamplingParams(n=9, seed=seed).split()]
    assert len(set(seeds)) == len(seeds)


def test_derived_seeds_are_valid_and_depend_on_the_whole_path() -> None:
    seeds = [derive_seed(seed, a, b) for seed in (0, 2**63 - 1) for a in range(9) for b in range(9)]
    assert len(set(seeds)) == len(seeds)
    assert all(SamplingParams(seed=seed).seed == seed for seed in seeds)
    assert derive_seed(5, 1, 2) == derive_seed(5, 1, 2)
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_params_can_be_hashed() -> None:
    params = SamplingParams(logit_bias=((1, 2.0),), stop=("a",))
    assert len({params, SamplingParams(logit_bias=((1, 2.0),), stop=("a",))}) == 1


@pytest.mark.parametrize("field", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_each_penalty_needs_token_counts(field: str) -> None:
    off = SamplingParams(repetition_penalty=1)
    assert not off.has_penalties
    changes: dict[str, Any] = {field: 1.5}
    assert replace(off, **changes).has_penalties
