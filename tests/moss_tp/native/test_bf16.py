"""Rounding to bf16 by bits equals torch's, for every kind of number."""

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moss_tp.native.bf16 import fp32_to_bf16
from moss_tp.native.compiled import python_callable
from moss_tp.native.memory import fp32_at, uint16_at
from moss_tp.native.sources import register_sources

register_sources(__file__)


@python_callable("void(int64, int64, int64)")
def round_all(target: int, source: int, count: int) -> None:
    values, rounded = fp32_at(source), uint16_at(target)
    for i in range(count):
        rounded[i] = fp32_to_bf16(values[i])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
# NaN whose upper half alone is infinity, or overflows; ties; the greatest number; subnormals.
@example([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x3F808000, 0x3F818000, 0x7F7FFFFF, 1, 0x80008000])
def test_bf16_rounds_like_torch(bits: list[int]) -> None:
    values = torch.from_numpy(np.array(bits, np.uint32).view(np.float32))
    rounded = torch.empty(len(bits), dtype=torch.bfloat16)
    round_all(rounded.data_ptr(), values.data_ptr(), len(bits))
    torch.testing.assert_close(rounded, values.bfloat16(), rtol=0, atol=0, equal_nan=True)
