"""What the checker says of single streams; whole histories are checked beside it."""

import pytest

from tests.proof.history.checker import told_faults
from tests.proof.history.record import Record, Stream

TURN, DELTA = (0, "turn", {"id": "t"}), (1, "delta", {"text": "a"})
DONE = (2, "done", {"turn": {"reply": "a"}})
ERROR = (-1, "error", {"error": {"code": "store_unavailable"}})  # of the connection


@pytest.mark.parametrize(
    ("events", "is_whole", "fault"),
    [
        ((TURN, DELTA, DONE), True, ""),
        ((TURN, DELTA, DONE), False, ""),
        ((TURN, DELTA), False, ""),
        ((TURN, DELTA, ERROR), False, ""),
        ((), False, ""),
        ((TURN, DELTA), True, "G7 no end"),
        ((TURN, DELTA, ERROR), True, "G7 no end"),
        ((ERROR,), True, "G7 no end"),
        ((TURN, DONE, DELTA), True, "G7"),
        ((DELTA, TURN, DONE), True, "G7 out of order"),
    ],
)
def test_a_stream_is_whole_with_a_terminal_event_only(
    events: tuple[tuple[int, str, dict[str, object]], ...], is_whole: bool, fault: str
) -> None:
    found = told_faults(Record(streams=[Stream("t", -1, events, is_whole)]))
    assert bool(found) == bool(fault) and all(each.startswith(fault) for each in found[:1]), found
