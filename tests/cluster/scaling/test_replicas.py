"""How numbers of replicas are spelled."""

import pytest

from cluster.scaling.replicas import Replicas


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [(2, 2, 2), ("2", 2, 2), ("1..4", 1, 4), (" 0..2 ", 0, 2), (Replicas(1, 3), 1, 3)],
)
def test_a_number_or_a_range(value: object, least: int, most: int) -> None:
    replicas = Replicas.of(value)
    assert (replicas.least, replicas.most) == (least, most)
    assert replicas.is_fixed == (least == most)
    assert Replicas.of(str(replicas)) == replicas


@pytest.mark.parametrize("value", [0, -1, "0", "0..0", "4..1", "1-4", "1..", "", True, None, 1.5])
def test_anything_else_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match=r"like 2 or 1\.\.4"):
        Replicas.of(value)


def test_the_first_one_starts_at_once_and_limits_hold() -> None:
    assert [Replicas.of(text).at_start for text in ("0..2", "1", "2..3")] == [1, 1, 2]
    assert [Replicas(1, 3).clip(number) for number in (0, 2, 5)] == [1, 2, 3]
