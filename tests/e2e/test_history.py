"""The history checker finds what it is for."""

import pytest

from tests.e2e.history import ChatRecord, History


def _record() -> ChatRecord:
    record = ChatRecord()
    for prompt in ("a", "b", "c", "unanswered"):
        record.sent.add(prompt)
    assert record.ack("a", [["a", "1"]]) == []
    assert record.ack("b", [["a", "1"], ["b", "2"]]) == []
    return record


@pytest.mark.parametrize(
    "history", [[["a", "1"], ["b", "2"]], [["a", "1"], ["b", "2"], ["unanswered", "?"]]]
)
def test_a_turn_without_an_answer_is_stored_or_not(history: History) -> None:
    assert _record().faults(history) == []


@pytest.mark.parametrize(
    ("fault", "history"),
    [
        ("lost", [["a", "1"]]),
        ("changed", [["a", "1"], ["b", "3"]]),
        ("doubled", [["a", "1"], ["b", "2"], ["b", "2"]]),
        ("doubled", [["a", "1"], ["b", "2"], ["unanswered", "?"], ["unanswered", "!"]]),
        ("foreign", [["a", "1"], ["b", "2"], ["x", "9"]]),
        ("reordered", [["b", "2"], ["a", "1"]]),
    ],
)
def test_each_kind_of_fault_is_found(fault: str, history: History) -> None:
    (found,) = _record().faults(history)
    assert found.startswith(fault)


def test_an_answer_to_something_else_is_a_fault() -> None:
    assert _record().ack("c", [["a", "1"], ["b", "2"]]) == ["'c' was answered as something else"]
