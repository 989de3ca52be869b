"""The number of replicas under any load: no flapping, up fast, down slowly, within the limits."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.scaling.policy import (
    HIGH,
    LOW,
    TURN_TOKENS,
    Load,
    Pending,
    Scaling,
    Scene,
    decide,
    need,
)
from cluster.scaling.replicas import Replicas
from tests.cluster.scaling.simulated import (
    FULL,
    NUM_BLOCKS,
    NUM_SLOTS,
    TICK_S,
    Simulation,
    loads_of,
    num_turns,
)

SCALING = Scaling(Replicas(1, 8), up_after_s=2, down_after_s=30)
needs = st.floats(0, 12, allow_nan=False)
limits = st.tuples(st.integers(0, 4), st.integers(1, 8)).map(lambda two: (min(two), max(two)))
starts = st.floats(0, 60)
ONE = replace(FULL, num_requests=1, running_tokens=TURN_TOKENS, held_blocks=0)
quick = settings(deadline=None, max_examples=60)


def scaling_of(two: tuple[int, int]) -> Scaling:
    return replace(SCALING, replicas=Replicas(*two))


@quick
@given(needs, limits, st.integers(1, 8), starts)
def test_a_constant_load_never_flaps(
    needed: float, two: tuple[int, int], wanted: int, start_s: float
) -> None:
    simulation = Simulation(scaling_of(two), wanted, start_s)
    history = simulation.run_for(needed, 300)
    assert num_turns([wanted, *history]) == 0
    assert len(set(history[-int(60 / TICK_S) :])) == 1, "it comes to rest"


@quick
@given(
    st.floats(0.05, 8),
    st.lists(st.floats(1, HIGH / LOW - 1e-6), min_size=400, max_size=400),
    st.integers(1, 8),
    starts,
)
def test_noise_within_the_band_never_flaps(
    least: float, factors: Sequence[float], wanted: int, start_s: float
) -> None:
    simulation = Simulation(SCALING, wanted, start_s)
    assert num_turns([wanted, *simulation.run([least * f for f in factors])]) == 0


def test_noise_beyond_the_band_may_flap() -> None:
    """So the property above says something."""
    simulation = Simulation(replace(SCALING, up_after_s=0, down_after_s=0), 1)
    assert num_turns(simulation.run([0.9, 0.4] * 20)) > 10


@quick
@given(st.lists(needs, min_size=100, max_size=100), st.integers(1, 8), limits)
def test_a_number_within_the_limits(
    changing: Sequence[float], wanted: int, two: tuple[int, int]
) -> None:
    history = Simulation(scaling_of(two), wanted).run(changing)
    assert all(two[0] <= number <= two[1] for number in history)


@quick
@given(st.lists(needs, min_size=100, max_size=400))
def test_a_growing_load_stops_nothing_and_a_shrinking_one_starts_nothing(
    changing: Sequence[float],
) -> None:
    up = Simulation(SCALING, 1).run(sorted(changing))
    down = Simulation(SCALING, 8).run(sorted(changing, reverse=True))
    assert up == sorted(up) and down == sorted(down, reverse=True)


@quick
@given(limits, st.integers(1, 8), starts)
def test_a_load_that_lasts_reaches_the_limits(
    two: tuple[int, int], wanted: int, start_s: float
) -> None:
    simulation = Simulation(scaling_of(two), wanted, start_s)
    # As many ticks as a step takes, whichever way, for each replica between the limits.
    assert simulation.run_for(20, 300)[-1] == two[1]
    assert simulation.run_for(0, 300)[-1] == two[0]


@quick
@given(needs, st.integers(1, 8))
def test_what_is_running_fits(needed: float, wanted: int) -> None:
    """At rest no replica is filled above HIGH unless there may be no more, nor are two needless."""
    number = Simulation(SCALING, wanted, 0).run_for(needed, 300)[-1]
    assert number == 8 or needed <= HIGH * number + 1e-6
    assert number == 1 or needed >= LOW * (number - 1) - 1e-6


def ticks(seconds: float) -> int:
    return ceil(seconds / TICK_S)


def test_up_fast_and_down_slowly() -> None:
    simulation = Simulation(SCALING, 1)
    up = simulation.run_for(2.0, 20)
    assert up.index(3) == ticks(SCALING.up_after_s)
    simulation.history.clear()
    down = simulation.run_for(0, 60)
    assert down.index(1) == ticks(SCALING.down_after_s)


def test_a_peak_of_a_moment_starts_nothing_and_a_lull_stops_nothing() -> None:
    simulation = Simulation(SCALING, 2)
    assert set(simulation.run([5.0, 1.2, 5.0, 5.0, 1.2] * 20)) == {2}
    lulls = [0.1] * ticks(SCALING.down_after_s - 1) + [1.2]
    assert set(simulation.run(lulls * 5)) == {2}


def test_it_goes_only_as_far_as_all_of_the_delay_asked_for() -> None:
    up = Simulation(SCALING, 1).run([6.0, 6.0, 1.2, 6.0, 6.0, 6.0, 6.0])
    assert max(up) == 2
    down = Simulation(SCALING, 8).run([0.1] * 40 + [1.9] + [0.1] * 40)
    assert down[ticks(SCALING.down_after_s)] == ceil(1.9 / LOW)


def test_a_replica_counts_when_it_is_ready() -> None:
    """While replicas start, their number is what the load of the others asks for; those that have
    said nothing yet stop nobody."""
    simulation = Simulation(SCALING, 1, start_s=50)
    assert simulation.run_for(2.0, 40)[-1] == 3 and simulation.num_ready == 1
    late = Scene(3, 3, loads_of(0.1, 2), 0, 100.0)
    waiting = Pending(1, 0.0)
    assert decide(SCALING, late, waiting) == (3, Pending())
    known = replace(late, loads=loads_of(0.1, 3))
    assert decide(SCALING, known, waiting) == (1, Pending())


def test_the_last_replica_goes_only_when_there_is_nothing_to_do() -> None:
    sleepy = replace(SCALING, replicas=Replicas(0, 2))
    assert set(Simulation(sleepy, 1).run_for(0.001, 100)) == {1}
    idle = Simulation(sleepy, 2)
    history = idle.run_for(0, 100)
    assert [history[0], *dict.fromkeys(history)] == [2, 2, 1, 0]
    first = Scene(1, 1, [Load(0, 0, 0, 0, 10, 4)], 1.0, 1000.0)
    assert decide(sleepy, first, Pending(0, 1.0)) == (1, Pending()), "one waits"
    assert Simulation(SCALING, 1).run_for(0, 100)[-1] == 1


def test_without_a_replica_a_request_starts_one() -> None:
    sleepy = replace(SCALING, replicas=Replicas(0, 2))
    for queued, number in ((0, 0), (0.01, 1), (500, 1)):
        assert decide(sleepy, Scene(0, 0, (), queued, 1.0), Pending()) == (number, Pending())


def test_new_limits_hold_at_once() -> None:
    for wanted, number in ((9, 8), (0, 1)):
        scene = Scene(wanted, wanted, loads_of(0.1, wanted) if wanted else (), 0, 1.0)
        assert decide(SCALING, scene, Pending())[0] == number


@pytest.mark.parametrize(
    ("load", "needed"),
    [
        (FULL, 1.0),
        (replace(ONE, held_blocks=NUM_BLOCKS), 1.0),
        (replace(ONE, num_requests=2 * NUM_SLOTS), 2.0),
        (replace(ONE, running_tokens=FULL.running_tokens), 1.0),
        (replace(FULL, waiting_tokens=FULL.running_tokens), 2.0),
        (replace(ONE, held_blocks=NUM_BLOCKS / 4), 0.25),
        (ONE, 1 / NUM_SLOTS),
        (Load(0, 0, 0, 0, 0, 0), 0.0),
    ],
)
def test_the_need_is_the_largest_of_requests_tokens_and_blocks(load: Load, needed: float) -> None:
    assert need([load]) == needed
    assert need([load] * 3) == pytest.approx(3 * needed)
    assert need([]) == 0
