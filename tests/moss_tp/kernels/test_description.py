"""What cannot be described or rebuilt; packed weights themselves are in `sharding`'s tests."""

from typing import Any

import pytest

from moss_tp.kernels.cpu.description import describe, rebuild


def test_a_value_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="a set cannot be described"):
        describe({1}, [])


@pytest.mark.parametrize(
    "description",
    [{"kind": "Path"}, {"kind": "Runs", "a": 1}, {"tensor": 0}, {"mul_add": "X"}, {"dtype": "x"}],
)
def test_a_description_of_nothing_is_refused(description: Any) -> None:
    with pytest.raises(ValueError, match="not packed weights"):
        rebuild(description, ())
