"""Drafts where they promise more tokens in the same time, one step behind elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.scheduling.drafting import Outlook
from moss_tp.engine.scheduling.pace import MIN_TIMES, PROBE_STEPS, Pace

STEP_S, ROW_COST = 0.01, 0.02


def a_pace(gap_s: float, drafted: int, expected: float, num_times: int = MIN_TIMES) -> Pace:
    """Settled on an outlook of one sequence."""
    pace = Pace(ROW_COST)
    for _ in range(num_times):
        pace.note_step(STEP_S)
        pace.note_gap(gap_s)
    for _ in range(100):
        pace.note_outlook(Outlook(1, drafted, expected))
    return pace


def tokens_a_second(num_decodes: int, gap_s: float, drafted: int, expected: float) -> float:
    """A step of one row takes STEP_S, each further row ROW_COST of that. It is measured at the
    size that steps have."""
    rows = num_decodes * (1 + drafted)
    relative = (1 + ROW_COST * (rows - 1)) / (1 + ROW_COST * (num_decodes - 1))
    return num_decodes * (1 + expected) / (STEP_S * relative + gap_s)


@given(
    num_decodes=st.integers(1, 64),
    gap_s=st.floats(0, 0.05),
    drafted=st.integers(1, 7),
    share=st.floats(0.01, 0.99),
)
def test_it_chooses_what_gives_more_tokens_a_second(
    num_decodes: int, gap_s: float, drafted: int, share: float
) -> None:
    expected = share * drafted
    drafts = tokens_a_second(num_decodes, gap_s, drafted, expected)
    behind = tokens_a_second(num_decodes, 0, 0, 0)
    if drafts != pytest.approx(behind, rel=1e-6):
        pace = a_pace(gap_s, drafted, expected)
        assert pace.should_draft(num_decodes) == (drafts > behind)


def test_nothing_is_waited_for_where_drafts_promise_nothing() -> None:
    assert not Pace(ROW_COST).should_draft(1)
    assert not a_pace(0, 0, 0).should_draft(1)
    assert not a_pace(0, 7, 7).should_draft(0), "nothing runs"


def test_what_waiting_costs_is_measured_first() -> None:
    """Else a gap that was never seen would never be."""
    assert a_pace(1, 7, 1, num_times=MIN_TIMES - 1).should_draft(1)
    assert not a_pace(1, 7, 1).should_draft(1)


def test_one_slow_step_or_gap_changes_nothing() -> None:
    pace = a_pace(0.001, 4, 2)
    pace.note_gap(60)
    pace.note_step(1e-6)
    assert pace.should_draft(1)


def test_one_step_without_a_draft_does_not_end_drafting() -> None:
    """But several do; and one good outlook begins it again."""
    pace = a_pace(0.001, 4, 2)
    pace.note_outlook(Outlook(1, 0, 0))
    assert pace.should_draft(1)
    for _ in range(20):
        pace.note_outlook(Outlook(1, 0, 0))
    assert not pace.should_draft(1)
    pace.note_outlook(Outlook(1, 7, 5))
    assert pace.should_draft(1)


def test_the_drafters_are_asked_now_and_then() -> None:
    pace = a_pace(0.001, 0, 0)
    assert [pace.note_behind() for _ in range(PROBE_STEPS)] == [False] * (PROBE_STEPS - 1) + [True]
    pace.note_outlook(Outlook(1, 0, 0))
    assert not pace.note_behind()
