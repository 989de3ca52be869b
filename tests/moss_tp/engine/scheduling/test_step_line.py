"""Steps by the number of sequences in them: a line that is learned, and bent by no outlier."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.scheduling.step_line import MAX_RISE, StepLine

BASE_S, SEQ_S = 0.01, 0.002


def learned(*numbers: int) -> StepLine:
    line = StepLine()
    for number in numbers:
        line.note(BASE_S + SEQ_S * number, number)
    return line


def test_nothing_is_known_at_first_and_one_number_tells_no_slope() -> None:
    assert StepLine().seconds(3) == 0
    assert learned(*[4] * 50).seconds(64) == pytest.approx(BASE_S + 4 * SEQ_S)


def test_a_line_is_learned_and_kept_while_the_number_stays() -> None:
    line = learned(*range(1, 33), *[32] * 20_000)
    for number in (1, 16, 64):
        assert line.seconds(number) == pytest.approx(BASE_S + number * SEQ_S, rel=0.05)


def test_a_slower_machine_raises_it_within_a_hundred_steps() -> None:
    line = learned(*[1, 20] * 50)
    for _ in range(100):
        line.note(3 * (BASE_S + 20 * SEQ_S), 20)
    assert line.seconds(20) == pytest.approx(3 * (BASE_S + 20 * SEQ_S), rel=0.1)


def test_one_step_that_hung_changes_little() -> None:
    line = learned(*[8] * 100)
    before = line.seconds(8)
    line.note(1e6, 8)
    assert line.seconds(8) <= before * (1 + MAX_RISE / 30)


@given(
    st.lists(st.tuples(st.floats(1e-6, 1e4), st.integers(1, 64)), min_size=1, max_size=60),
    st.integers(1, 64),
)
def test_more_sequences_never_make_a_step_shorter(
    steps: list[tuple[float, int]], number: int
) -> None:
    line = StepLine()
    for step in steps:
        line.note(*step)
    assert -1e-9 <= line.seconds(number) <= line.seconds(number + 1) + 1e-9 < math.inf
