"""What is no easier than what was refused, by bodies of all dialects."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.proxy.demand import Demand

FIELDS = ("max_time", "max_tokens", "max_completion_tokens", "max_new_tokens", "max_length", "n")
bodies = st.dictionaries(st.sampled_from(FIELDS), st.integers(1, 100))


def demand(text: str = "", /, **fields: object) -> Demand:
    found = Demand.of(json.dumps({"messages": text, **fields}).encode())
    assert found is not None
    return found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"max_time": "1"}',
        b'{"n": true}',
        b'{"max_tokens": [1]}',
        b'{"n": ' + b"1" * 5000 + b"}",
    ],
)
def test_what_no_endpoint_takes_demands_nothing(body: bytes) -> None:
    assert Demand.of(body) is None


@pytest.mark.parametrize(
    ("asked", "refused", "is_no_easier"),
    [
        ({}, {}, True),
        ({"max_time": 5}, {"max_time": 5}, True),
        ({"max_time": 4}, {"max_time": 5}, True),
        ({"max_time": 6}, {"max_time": 5}, False),
        ({}, {"max_time": 5}, False),
        ({"max_time": 5}, {}, True),
        ({"max_tokens": 10}, {"max_tokens": 10}, True),
        ({"max_tokens": 9}, {"max_tokens": 10}, False),
        ({"max_tokens": None}, {"max_tokens": 10}, True),
        ({"max_tokens": 10}, {}, False),
        ({"max_completion_tokens": 10}, {"max_tokens": 10}, False),  # who knows
        ({"n": 1}, {"n": 2}, False),
        ({"n": 2}, {}, True),
        ({"prompt": "a"}, {"prompt": ["a", "b"]}, False),
        ({"prompt": [1, 2, 3]}, {"prompt": [[1], [2]]}, False),
        ({"prompt": [[1], [2]]}, {"prompt": [1, 2]}, True),
        ({"prompt": []}, {"prompt": "a"}, True),
    ],
)
def test_less_time_and_more_tokens_are_no_easier(
    asked: dict[str, object], refused: dict[str, object], is_no_easier: bool
) -> None:
    assert demand("text", **asked).is_no_easier(demand("text", **refused)) == is_no_easier


def test_a_much_shorter_prompt_is_easier() -> None:
    assert not demand("a" * 100).is_no_easier(demand("a" * 1000))
    assert demand("a" * 900).is_no_easier(demand("a" * 1000))


@given(bodies, bodies, bodies)
def test_harder_than_harder_is_harder(
    one: dict[str, int], two: dict[str, int], three: dict[str, int]
) -> None:
    first, second, third = demand(**one), demand(**two), demand(**three)
    assert first.is_no_easier(first)
    if first.is_no_easier(second) and second.is_no_easier(third):
        small = third.num_bytes * 0.5 > first.num_bytes  # of bytes, half may be lost each time
        assert first.is_no_easier(third) or small
