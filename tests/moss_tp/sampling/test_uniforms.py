"""The numbers are uniform, uncorrelated, and functions of seed and position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.sampling.uniforms import uniforms

MASK = 2**64 - 1
pairs = st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**40)), min_size=1)


def one(seed: int, position: int) -> float:
    """SplitMix64 in Python ints, without arrays and overflow."""

    def mix(x: int) -> int:
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
        return x ^ x >> 31

    golden = 0x9E3779B97F4A7C15
    start = mix(seed + golden & MASK)
    return (mix(start + position * golden & MASK) >> 11) / 2**53


@given(pairs)
def test_number_depends_on_seed_and_position_only(seed_positions: list[tuple[int, int]]) -> None:
    seeds, positions = zip(*seed_positions, strict=True)
    numbers = uniforms(seeds, positions).tolist()
    assert numbers == [one(seed, position) for seed, position in seed_positions]
    assert all(0 <= number < 1 for number in numbers)


@pytest.mark.parametrize(
    ("seeds", "positions"),
    [(np.zeros(100_000), np.arange(100_000)), (np.arange(100_000), np.zeros(100_000))],
    ids=["along a reply", "across neighbouring seeds"],
)
def test_numbers_are_uniform_and_uncorrelated(seeds: np.ndarray, positions: np.ndarray) -> None:
    numbers = uniforms(seeds.tolist(), positions.tolist())
    num_bins = 100
    counts = np.histogram(numbers, bins=num_bins, range=(0, 1))[0]
    expected = len(numbers) / num_bins
    # Chi-square, 99 degrees of freedom: exceeds 161 once in ten thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 161
    for lag in (1, 2, 7):
        correlation = np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]
        assert abs(correlation) < 4 / len(numbers) ** 0.5
