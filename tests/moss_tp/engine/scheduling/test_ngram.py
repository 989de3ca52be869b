"""N-gram drafts: where they come from, how long they are, and how the hit rate follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.scheduling.ngram import (
    HIT_RATE_AT_START,
    HIT_RATE_LIMIT,
    NgramDrafter,
    min_chance,
)

ALWAYS = 0.0


def test_the_longest_and_latest_match_is_continued() -> None:
    ids = [1, 2, 3, 4, 9, 2, 3, 5, 8, 2, 3, 6, 1, 2, 3]
    assert NgramDrafter().draft(ids, 3, ALWAYS) == [4, 9, 2]
    assert NgramDrafter().draft(ids[1:], 3, ALWAYS) == [6, 1, 2]


def test_a_repetition_is_continued_past_the_end() -> None:
    assert NgramDrafter().draft([7, 1, 2, 1, 2], 5, ALWAYS) == [1, 2, 1, 2, 1]


def test_no_match_gives_no_draft() -> None:
    drafter = NgramDrafter()
    for ids in ([1], [1, 2], [1, 2, 3, 4]):
        assert drafter.draft(ids, 4, ALWAYS) == []
    assert drafter.hit_rate == HIT_RATE_AT_START


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 40))
def test_indexing_step_by_step_equals_indexing_at_once(ids: list[int], cut: int) -> None:
    stepwise = NgramDrafter()
    for end in range(min(cut, len(ids)), len(ids)):
        stepwise.draft(ids[:end], 5, ALWAYS)
    assert stepwise.draft(ids, 5, ALWAYS) == NgramDrafter().draft(ids, 5, ALWAYS)


def test_hits_lengthen_drafts_and_misses_end_them() -> None:
    drafter, ids = NgramDrafter(), [1, 2] * 4
    lengths = []
    for _ in range(12):
        lengths.append(len(drafter.draft(ids, 7, 0.25)))
        ids.append(ids[-2])
    assert lengths[0] == 2 and lengths[-1] == 7 and lengths == sorted(lengths)
    for _ in range(12):
        drafter.draft(ids, 7, 0.25)
        ids.extend([9, 1, 2])
        lengths.append(len(drafter.draft(ids, 7, 0.25)))
        ids.extend([len(ids) + 100, 1, 2])
    assert lengths[-1] == 0


@pytest.mark.parametrize(("num_rows", "expected"), [(1, 0.25), (2, 0.4), (8, 8 / 11)])
def test_a_drafted_row_must_yield_as_much_per_time_as_the_others(
    num_rows: int, expected: float
) -> None:
    assert min_chance(num_rows, 0.25) == pytest.approx(expected)
    assert min_chance(64, 0.25) > HIT_RATE_LIMIT
