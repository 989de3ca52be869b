"""The types and ranges of sampling parameters, and their split into single replies."""

import math
import pickle
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.errors import InvalidRequestError
from moss_tp.sampling_params import SamplingParams, derive_seed
from tests.support.anything import anything

OPTIONAL = ("max_time", "seed", "logprobs", "prompt_logprobs")
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
    (
        "stop",
        [("",), ("x" * 257,), tuple("abcdefghijklmnopq"), "", 5, [5], b"x", "\ud800", {"a": 1}],
    ),
    ("stop_token_ids", [(1,) * 65, 5, (1.0,), (True,), "5", ((1,),)]),
    ("logprobs", [-1, 21]),
    ("prompt_logprobs", [-1, 21]),
    ("n", [0, 129]),
]
NUMBERS = [
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "length_penalty",
    "max_time",
]
INTEGERS = [
    "top_k",
    "regulation_start",
    "max_tokens",
    "min_tokens",
    "seed",
    "logprobs",
    "prompt_logprobs",
    "n",
]
BAD += [(field, ["0.5", True, 1j, [1], Decimal("0.5"), 10**400]) for field in NUMBERS]
BAD += [(field, [4.5, 4.0, "4", True, math.nan, [4], 2**63, 10**400]) for field in INTEGERS]
BAD += [(field, [None]) for field in NUMBERS + INTEGERS if field not in OPTIONAL]
BAD += [("ignore_eos", [1, 0, "yes", None])]
BAD += [("logit_bias", [5, {5}, ["ab"], [(5,)], {"5": 1}, {5: "1"}, {5: None}, {True: 1}])]


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD for value in values]
)
def test_value_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{field} is "):
        SamplingParams(**{field: value})


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([one.name for one in fields(SamplingParams)]), anything))
def test_any_value_in_any_field_is_taken_or_refused(values: dict[str, Any]) -> None:
    try:
        params = SamplingParams(**values)
    except InvalidRequestError as error:
        assert str(error).split(" ")[0] in {*values, "min_tokens"}, "below a max_tokens"
        return
    assert hash(params) == hash(replace(params))
    assert pickle.loads(pickle.dumps(params)) == params
    for field in INTEGERS:
        assert type(getattr(params, field)) in (int, type(None))


def test_common_forms_are_taken() -> None:
    """As a tuple of pairs, of strings, of ids, and as plain numbers."""
    given_as: dict[str, list[Any]] = {
        "logit_bias": [{5: 100}, [[5, 100]], {np.int64(5): np.float32(100)}, np.array([[5, 100]])],
        "stop": ["x", ["x"], {"x"}],
        "stop_token_ids": [[7], {7}, np.array([7])],
        "max_tokens": [np.int32(4)],
        "temperature": [np.float32(0.5), Fraction(1, 2)],
    }
    expected = SamplingParams(
        logit_bias=((5, 100.0),), stop=("x",), stop_token_ids=(7,), max_tokens=4, temperature=0.5
    )
    for field, values in given_as.items():
        for value in values:
            changes: dict[str, Any] = {field: value}
            assert replace(expected, **changes) == expected
    for field in ("stop", "stop_token_ids", "logit_bias"):
        nothing: dict[str, Any] = {field: None}
        assert SamplingParams(**nothing) == SamplingParams()


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


def test_no_token_is_a_wish_only_where_logprobs_of_the_prompt_are() -> None:
    params = SamplingParams(max_tokens=0, prompt_logprobs=0, n=2)
    assert [one.prompt_logprobs for one in params.split()] == [0, 0]
    with pytest.raises(InvalidRequestError, match=r"^max_tokens is out of range"):
        SamplingParams(max_tokens=0, logprobs=1)
    with pytest.raises(InvalidRequestError, match=r"^max_tokens is out of range"):
        SamplingParams(max_tokens=-1, prompt_logprobs=1)
    each = SamplingParams(prompt_logprobs=3, n=3).split()
    assert [one.prompt_logprobs for one in each] == [3, None, None], "the prompt is the same"


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
