"""The fingerprint of a body covers what is asked, and nothing of how it is delivered."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.demo import ChatRequest, turn_request

PLUGINS = ("calculator", "equation_solver", "web_search")

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PROMPT = {"prompt": TEXT.filter(bool)}
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "max_length": st.integers(1, 4096),
    "top_p": st.floats(0.01, 1),
    "temperature": st.floats(0, 10).map(abs),
    "length_penalty": st.floats(0.01, 10),
    "regulation_start": st.integers(0, 4096),
    "plugins": st.none() | st.lists(st.sampled_from(PLUGINS), unique=True),
}
DELIVERY: dict[str, st.SearchStrategy[Any]] = {
    "uid": st.none() | TEXT,
    "stream": st.booleans(),
    "max_time": st.none() | st.floats(0.1, 1000),
    "model": st.sampled_from([None, "moss"]),
    "unknown": st.integers(),
}
ASKED = {**PROMPT, **OPTIONAL}
BODIES = st.fixed_dictionaries(PROMPT, optional=OPTIONAL)
DELIVERIES = st.fixed_dictionaries({}, optional=DELIVERY)


def fingerprint(body: dict[str, Any]) -> str:
    return turn_request(ChatRequest.model_validate(body), None, ("moss",), PLUGINS).fingerprint


@given(BODIES, DELIVERIES, DELIVERIES)
def test_it_is_the_same_however_the_reply_is_delivered(
    asked: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert fingerprint({**asked, **first}) == fingerprint({**asked, **second})


def asked_values(body: dict[str, Any]) -> dict[str, Any]:
    """What `body` asks, spelled in one way."""
    values = ChatRequest.model_validate(body).model_dump(include=set(ASKED))
    values["plugins"] = None if values["plugins"] is None else set(values["plugins"])
    return values


@given(BODIES, BODIES)
def test_it_is_the_same_for_the_same_question_only(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    is_same = asked_values(first) == asked_values(second)
    assert (fingerprint(first) == fingerprint(second)) == is_same


@given(BODIES, st.sampled_from(sorted(ASKED)), st.data())
def test_every_field_of_the_question_counts(
    body: dict[str, Any], field: str, data: st.DataObject
) -> None:
    changed = {**body, field: data.draw(ASKED[field])}
    is_same = asked_values(body) == asked_values(changed)
    assert (fingerprint(body) == fingerprint(changed)) == is_same
