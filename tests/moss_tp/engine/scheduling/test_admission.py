"""The expected wait: never less with more work ahead; speeds that no outlier changes."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.scheduling.admission import Forecast
from moss_tp.engine.scheduling.speeds import MIN_STEPS, NUM_STEPS, Speeds

STEP_S = 0.05

work = st.tuples(st.integers(1, 300), st.integers(0, 200), st.integers(1, 12))
works = st.lists(work, max_size=12)


def start_of_the_next(
    running: Sequence[tuple[int, int, int]], waiting: Sequence[tuple[int, int, int]], slots: int
) -> tuple[float, float]:
    """Steps and prompt tokens before it."""
    forecast = Forecast(slots, num_blocks=16, chunk_size=32)
    for one in running[:slots]:
        forecast.run(*one)
    for one in waiting:
        forecast.queue(*one)
    forecast.wait(4)
    return forecast.num_steps, forecast.num_prompt_tokens


@given(
    works, works, st.integers(1, 4), st.integers(0, 11), st.tuples(*[st.integers(0, 99)] * 3), work
)
def test_more_work_ahead_never_makes_a_start_earlier(
    running: list[tuple[int, int, int]],
    waiting: list[tuple[int, int, int]],
    slots: int,
    place: int,
    more: tuple[int, int, int],
    another: tuple[int, int, int],
) -> None:
    before = start_of_the_next(running, waiting, slots)
    inserted = [*waiting[:place], another, *waiting[place:]]
    longer = [
        (one[0] + more[0], one[1] + more[1], one[2] + more[2]) if i == place else one
        for i, one in enumerate(waiting)
    ]
    for changed in (inserted, longer):
        after = start_of_the_next(running, changed, slots)
        assert after[0] >= before[0] - 1e-9 and after[1] >= before[1]


def test_a_forecast_by_hand() -> None:
    """Two slots: the first is free after 5 steps, the next after 5 + 2 + 3."""
    forecast = Forecast(num_slots=2, num_blocks=100, chunk_size=10)
    forecast.run(0, 5, 1)
    forecast.run(0, 50, 1)
    forecast.queue(20, 3, 1)
    assert (forecast.num_steps, forecast.num_prompt_tokens) == (7, 20)
    forecast.wait(1)
    assert forecast.num_steps == 10
    blocks = Forecast(num_slots=9, num_blocks=10, chunk_size=10)
    blocks.run(0, 5, 4)
    blocks.run(0, 8, 5)
    blocks.wait(1)
    assert blocks.num_steps == 0
    blocks.wait(2)
    assert blocks.num_steps == 5
    blocks.wait(1000)
    assert blocks.num_steps == 8, "not more than there are"


def measured(*steps: tuple[float, int, int]) -> Speeds:
    speeds = Speeds()
    for step in steps:
        speeds.note_step(*step)
    return speeds


def test_speeds_of_pure_and_mixed_steps() -> None:
    assert not measured(*[(0.1, 2, 0)] * (MIN_STEPS - 1)).is_known
    pure = measured(*[(0.1, 2, 0)] * 5, *[(2.0, 0, 100)] * 5)
    assert pure.is_known and (pure.step_s, pure.prompt_token_s) == (0.1, 0.02)
    mixed = measured((2.0, 0, 100), *[(0.1 + 0.02 * 50, 3, 50)] * 5)
    assert mixed.step_s == pytest.approx(0.1)
    assert mixed.prompt_token_s == pytest.approx(0.02)
    slower = measured((2.0, 0, 100), (0.1, 1, 0), *[(2.2, 3, 50)] * NUM_STEPS)
    assert slower.step_s + 50 * slower.prompt_token_s == pytest.approx(2.2)
    assert slower.step_s > 0.15 and slower.prompt_token_s > 0.03, "in all its parts"
    assert not measured(*[(0.0, 1, 1)] * 9).is_known, "a clock that stands"


@given(st.lists(st.sampled_from([40.0, 1e-6]), max_size=NUM_STEPS // 3))
def test_a_step_that_hung_changes_nothing(outliers: list[float]) -> None:
    speeds = measured(*[(STEP_S, 2, 0)] * NUM_STEPS, *((s, 2, 0) for s in outliers))
    assert speeds.step_s == STEP_S


@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.integers(0, 64), st.integers(0, 2048)).filter(
            lambda step: step[1] + step[2] > 0
        ),
        max_size=100,
    )
)
def test_any_steps_give_finite_speeds(steps: list[tuple[float, int, int]]) -> None:
    speeds = measured(*steps)
    assert 0 <= speeds.step_s < math.inf
    assert 0 <= speeds.prompt_token_s < math.inf
