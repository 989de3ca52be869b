"""Panels hold every weight once, in the documented order, padded with zeros to whole groups."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.cpu.linear.pack import PackedWeight, inputs_at_once, pack_dense, weight_dtype
from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    DOT_X16_BF16,
    FMA_X8_BF16,
    FMA_X8_FP16,
    FMA_X8_FP32,
    FMA_X16_FP16,
    FMA_X16_FP32,
    GROUP,
    PANEL,
    MulAdd,
)

# Packing is plain torch: any machine can pack for any other.
MUL_ADDS = [
    AMX_X16_BF16, DOT_X16_BF16, FMA_X8_BF16, FMA_X8_FP16, FMA_X8_FP32, FMA_X16_FP16, FMA_X16_FP32
]  # fmt: skip
mul_adds = st.sampled_from(MUL_ADDS)
sizes = st.integers(1, 3 * GROUP)


def numbered(outputs: int, inputs: int, mul_add: MulAdd) -> Tensor:
    """Different values that every dtype holds exactly."""
    numbers = torch.arange(outputs * inputs).view(outputs, inputs).remainder(251) + 1
    return numbers.to(weight_dtype(mul_add))


def column_at(place: int, mul_add: MulAdd) -> int:
    """Of the columns of a K step: FMA_X8_BF16 has column i next to column i + 8."""
    is_split = mul_add is FMA_X8_BF16
    return place // 2 + place % 2 * (PANEL // 2) if is_split else place


def unpacked(packed: PackedWeight) -> Tensor:
    """`(padded outputs, inputs)`, read one element at a time as the docstrings describe it."""
    inputs = packed.inputs
    rows = torch.zeros(len(packed.panels) * PANEL, inputs)
    step = packed.mul_add.x_per_step
    for number, panel in enumerate(packed.panels.float()):
        values = iter(panel.tolist())
        for first in range(0, inputs, step):
            for place in range(PANEL):
                column = column_at(place, packed.mul_add)
                for index in range(first, first + step):
                    rows[number * PANEL + column, index] = next(values)
    return rows


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(1, 8), mul_adds, st.booleans())
def test_panels_hold_the_weight(
    outputs: int, half_inputs: int, mul_add: MulAdd, has_bias: bool
) -> None:
    weight = numbered(outputs, half_inputs * max(2, inputs_at_once(mul_add)), mul_add)
    bias = torch.arange(outputs).float() if has_bias else None
    packed = pack_dense(DenseWeight(weight, bias), mul_add)
    rows = unpacked(packed)
    assert len(rows) % GROUP == 0 and 0 <= len(rows) - outputs < GROUP
    assert torch.equal(rows[:outputs], weight.float())
    assert not rows[outputs:].any()
    assert packed.bias.shape == (len(rows),)
    assert torch.equal(packed.bias[:outputs], torch.zeros(outputs) if bias is None else bias)
    assert not packed.bias[outputs:].any()


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, mul_adds)
def test_stacked_weights_keep_their_groups(first: int, second: int, mul_add: MulAdd) -> None:
    """The second begins with a group of its own, so a task belongs to one output."""
    inputs = max(4, inputs_at_once(mul_add))
    weights = [numbered(outputs, inputs, mul_add) for outputs in (first, second)]
    packed = [pack_dense(DenseWeight(weight, weight[:, 0].float()), mul_add) for weight in weights]
    stacked = packed[0].stack(packed[1])
    assert torch.equal(unpacked(stacked), torch.cat([unpacked(one) for one in packed]))
    assert torch.equal(stacked.bias, torch.cat([one.bias for one in packed]))
    assert (stacked.outputs, stacked.inputs) == (first, inputs)


@pytest.mark.parametrize("mul_add", MUL_ADDS)
def test_x_has_the_dtype_that_the_kernel_reads(mul_add: MulAdd) -> None:
    packed = pack_dense(DenseWeight(numbered(3, max(4, inputs_at_once(mul_add)), mul_add)), mul_add)
    assert packed.x_dtype == (torch.bfloat16 if mul_add.x_per_step == 2 else torch.float32)
