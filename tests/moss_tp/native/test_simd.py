"""Rounding to bf16 by bits is torch's, for every kind of number."""

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moss_tp.native.compiled import called
from moss_tp.native.simd import floats_at, halves_at, round_to_bf16


@called("void(int64, int64, int64)")
def round_all(target: int, source: int, count: int) -> None:
    floats, halves = floats_at(source), halves_at(target)
    for i in range(count):
        halves[i] = round_to_bf16(floats[i])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
# NaN whose upper half alone is infinity, or overflows; ties; the greatest number; subnormals.
@example([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x3F808000, 0x3F818000, 0x7F7FFFFF, 1, 0x80008000])
def test_bf16_as_torch_rounds(bits: list[int]) -> None:
    values = torch.from_numpy(np.array(bits, np.uint32).view(np.float32))
    rounded = torch.empty(len(bits), dtype=torch.bfloat16)
    round_all(rounded.data_ptr(), values.data_ptr(), len(bits))
    torch.testing.assert_close(rounded, values.bfloat16(), rtol=0, atol=0, equal_nan=True)
