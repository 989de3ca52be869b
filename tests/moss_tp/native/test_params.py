"""Named parameters: what Python packs, a kernel reads under the same names."""

from typing import NamedTuple

import numpy as np
import pytest

from moss_tp.native.compiled import python_callable
from moss_tp.native.llvm import INT_BYTES
from moss_tp.native.params import Address, num_bytes, params_reader
from moss_tp.native.sources import register_sources

register_sources(__file__)


class Sample(NamedTuple):
    first: int
    values: Address
    last: int


_read_sample = params_reader(Sample)


@python_callable("int64(int64)")
def first_minus_last(address: int) -> int:
    p = _read_sample(address)
    return p.first - p.last  # type: ignore[no-any-return]


@python_callable("int64(int64)")
def values_of(address: int) -> int:
    return _read_sample(address).values  # type: ignore[no-any-return]


@pytest.mark.parametrize("values", [(7, 1, 2), (-1, 0, 2**62)])
def test_fields_are_read_by_name(values: tuple[int, int, int]) -> None:
    packed = np.array(Sample(*values), np.int64)
    assert first_minus_last(packed.ctypes.data) == values[0] - values[2]
    assert values_of(packed.ctypes.data) == values[1]


def test_num_bytes() -> None:
    assert num_bytes(Sample) == 3 * INT_BYTES
    assert num_bytes(Sample, Sample) == 6 * INT_BYTES
