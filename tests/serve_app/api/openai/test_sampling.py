"""OpenAI's sampling fields become SamplingParams, with MOSS's defaults."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moss_tp.errors import InvalidRequestError
from moss_tp.sampling_params import SamplingParams
from serve_app.api.openai.sampling import SamplingFields
from serve_app.errors import InvalidFieldError
from tests.support.anything import anything

NAMES = sorted(SamplingFields.model_fields)


def params(**fields: Any) -> SamplingParams:
    return SamplingFields.model_validate(fields).sampling_params(9, None)


def test_absent_and_null_are_mosss_defaults() -> None:
    assert params() == params(**dict.fromkeys(NAMES)) == SamplingParams(max_tokens=9)


def test_each_field_arrives() -> None:
    read = params(
        temperature=0, top_k=-1, seed=-1, stop=["a", "b"], logit_bias={"5": 2}, n=2, ignore_eos=True
    )
    assert (read.temperature, read.top_k, read.seed) == (0, 0, 2**63 - 1)
    assert read.stop == ("a", "b") and read.logit_bias == ((5, 2),)
    assert read.n == 2 and read.ignore_eos
    assert SamplingFields.model_validate({}).sampling_params(5, 3).logprobs == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"min_tokens": 10}, "min_tokens"), ({"logit_bias": {"1": 0, "01": 1}}, "logit_bias")],
)
def test_values_that_do_not_fit_each_other(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        params(**fields)
    assert raised.value.param == param


@given(st.dictionaries(st.sampled_from(NAMES), anything, max_size=3))
def test_whatever_it_is_it_is_taken_or_refused(fields: dict[str, Any]) -> None:
    with contextlib.suppress(ValidationError, InvalidRequestError):
        params(**fields)
