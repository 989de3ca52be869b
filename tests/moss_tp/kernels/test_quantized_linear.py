"""Quantized linear layers against `dense()` in fp64, on every kind of levels that this machine has.

Tolerance: levels, scales and products of them with bf16 are exact, so what is rounded are sums in
fp32: 1e-5 of the largest result. x is drawn in bf16.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.kernels.base import Linear
from moss_tp.kernels.cpu.linear.gemm_kernel import MAX_TASK_ROWS
from moss_tp.kernels.cpu.linear.panel import PanelLinear
from moss_tp.kernels.cpu.linear.quantized_pack import MAX_RUN, pack_quantized
from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    DOT_X16_BF16,
    FMA_X8_FP32,
    FMA_X16_FP32,
    MulAdd,
)
from moss_tp.kernels.quantized import QuantizedWeight
from moss_tp.native.amx import has_amx
from moss_tp.native.vectors import has_cpu_feature
from tests.moss_tp.kernels.quantized_case import quantized_case

MUL_ADDS: dict[str, MulAdd] = {"fma8": FMA_X8_FP32}
if has_cpu_feature("avx512f"):
    MUL_ADDS["fma16"] = FMA_X16_FP32
if has_cpu_feature("avx512bf16"):
    MUL_ADDS["dot"] = DOT_X16_BF16
if has_amx():
    MUL_ADDS["amx"] = AMX_X16_BF16
# Around a tile's rows (6, 12, and 16 of AMX), two tiles', and a task's.
ROWS = [*range(8), 12, 13, 16, 17, 25, 32, 33, MAX_TASK_ROWS + 1]

levels = pytest.mark.parametrize("bits", [4, 8])
arithmetic = pytest.mark.parametrize("name", MUL_ADDS)


def random(*shape: int) -> Tensor:
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
    return numbers.bfloat16().float()


def in_order(weight: QuantizedWeight, group_size: int) -> QuantizedWeight:
    groups = torch.arange(weight.inputs) // group_size
    return replace(weight, groups=groups.int() % len(weight.scales))


def symmetric(weight: QuantizedWeight) -> QuantizedWeight:
    return replace(weight, zeros=torch.full_like(weight.zeros, 2 ** (weight.bits - 1)))


def cut(weight: QuantizedWeight) -> QuantizedWeight:
    """A rank's part: its first and its last group are incomplete, and not of whole units."""
    words = slice(1, -2)
    per_word = 32 // weight.bits
    inputs = slice(per_word, -2 * per_word)
    return replace(weight, packed=weight.packed[words], groups=weight.groups[inputs])


# Of 70 outputs: two tasks, the second with padding.
WEIGHTS: dict[str, Callable[[int], QuantizedWeight]] = {
    "one unit": lambda bits: quantized_case(bits, 8, 1, 1, seed=1),
    "groups of 32": lambda bits: in_order(quantized_case(bits, 256, 70, 8, seed=2), 32),
    "groups of 64": lambda bits: in_order(quantized_case(bits, 320, 70, 5, seed=3), 64),
    "groups of 128": lambda bits: in_order(quantized_case(bits, 256, 130, 2, seed=4), 128),
    "a single group": lambda bits: quantized_case(bits, MAX_RUN + 24, 70, 1, seed=5),
    "blocks of groups": lambda bits: in_order(
        quantized_case(bits, 2 * MAX_RUN + 128, 70, 17, seed=11), 128
    ),
    "some groups of whole chunks": lambda bits: replace(
        quantized_case(bits, MAX_RUN + 200, 70, 3, seed=12),
        groups=torch.tensor([0] * 64 + [1] * 40 + [2] * (MAX_RUN + 96)).int(),
    ),
    "symmetric": lambda bits: symmetric(in_order(quantized_case(bits, 256, 64, 8, seed=6), 32)),
    "act-order": lambda bits: quantized_case(bits, 264, 70, 5, seed=7),
    "symmetric act-order": lambda bits: symmetric(quantized_case(bits, 264, 70, 5, seed=8)),
    "cut": lambda bits: cut(in_order(quantized_case(bits, 256, 70, 3, seed=9), 100)),
    "a group without inputs": lambda bits: in_order(quantized_case(bits, 64, 70, 9, seed=10), 32),
}


def exact(weight: QuantizedWeight, x: Tensor, bias: bool = True) -> Tensor:
    dense = replace(weight, dtype=torch.float64).dense()
    y = x.double() @ dense.weight.T
    return y if dense.bias is None or not bias else y + dense.bias


def assert_close(y: Tensor, expected: Tensor) -> None:
    assert y.dtype == torch.float32
    largest = float(expected.abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5 * largest)


@levels
@arithmetic
@pytest.mark.parametrize("kind", WEIGHTS)
def test_equals_the_dense_weight(kind: str, name: str, bits: int) -> None:
    weight = WEIGHTS[kind](bits)
    linear = PanelLinear(weight, mul_add=MUL_ADDS[name])
    for rows in ROWS:
        x = random(rows, weight.inputs)
        assert_close(linear(x), exact(weight, x))


@levels
@arithmetic
def test_gelu_and_residual(name: str, bits: int) -> None:
    weight = replace(WEIGHTS["act-order"](bits), bias=None)
    x, residual = random(5, weight.inputs), random(5, weight.outputs)
    y = exact(weight, x)
    has_gelu = PanelLinear(weight, True, MUL_ADDS[name])
    assert_close(has_gelu(x), F.gelu(y, approximate="tanh"))
    plain = PanelLinear(weight, mul_add=MUL_ADDS[name])
    assert_close(plain(x, residual), y + residual)


@levels
@arithmetic
@pytest.mark.parametrize("kind", ["groups of 32", "act-order"])
def test_scales_or_zeros_of_another_group_are_noticed(kind: str, name: str, bits: int) -> None:
    weight = WEIGHTS[kind](bits)
    x = random(3, weight.inputs)
    y = exact(weight, x)
    groups = [1, 0, *range(2, len(weight.scales))]
    for wrong in (
        replace(weight, scales=weight.scales[groups]),
        replace(weight, zeros=weight.zeros[groups]),
    ):
        with pytest.raises(AssertionError):
            assert_close(PanelLinear(wrong, mul_add=MUL_ADDS[name])(x), y)


@cache
def linear_of(name: str, kind: str, bits: int) -> tuple[Linear, int]:
    weight = WEIGHTS[kind](bits)
    return PanelLinear(weight, mul_add=MUL_ADDS[name]), weight.inputs


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[int, list[int]]:
    """How many rows a step has, and some of them, in any order."""
    rows = draw(st.integers(1, MAX_TASK_ROWS + 4))
    count = draw(st.integers(1, rows))
    return rows, draw(st.permutations(range(rows)))[:count]


def assert_rows_stand_alone(linear: Linear, x: Tensor, rows: list[int]) -> None:
    """On any number of threads."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = linear(x)[rows]
        torch.set_num_threads(2)
        assert torch.equal(linear(x[rows]), together)
    finally:
        torch.set_num_threads(before)


@levels
@arithmetic
@settings(max_examples=30, deadline=None)
@given(some_rows(), st.sampled_from(sorted(WEIGHTS)))
def test_a_row_does_not_depend_on_those_beside_it(
    name: str, bits: int, rows: tuple[int, list[int]], kind: str
) -> None:
    linear, inputs = linear_of(name, kind, bits)
    assert_rows_stand_alone(linear, random(rows[0], inputs), rows[1])


@levels
def test_rows_that_do_are_noticed(bits: int) -> None:
    """Zeros are subtracted from the levels for few rows, and added up apart for many."""
    weight = replace(WEIGHTS["groups of 32"](bits), bias=None)
    dense, levels = weight.dense().weight, weight.levels().float()
    group = weight.groups.long()

    def by_rows(x: Tensor, residual: Tensor | None = None) -> Tensor:
        if len(x) < 8:
            return x @ dense.T
        scales = weight.scales.float()[group]
        return x @ (levels * scales) - x @ (weight.zeros[group] * scales)

    with pytest.raises(AssertionError):
        assert_rows_stand_alone(by_rows, random(20, weight.inputs), [0, 1, 2])


@levels
def test_infinite_inputs_stay_in_their_row(bits: int) -> None:
    """And in the columns: padding multiplies them by nothing."""
    weight = WEIGHTS["cut"](bits)
    x = random(14, weight.inputs)
    linear = PanelLinear(weight)
    before = linear(x)
    x[3, 5] = torch.inf
    after = linear(x)
    others = [row for row in range(14) if row != 3]
    assert torch.equal(after[others], before[others])
    assert not after[3].isfinite().all()


def test_an_order_is_kept_only_where_it_is_another() -> None:
    for kind, has_order in {"groups of 32": False, "act-order": True, "cut": True}.items():
        assert (pack_quantized(WEIGHTS[kind](4)).runs.is_gathered) == has_order


def test_zeros_are_kept_only_where_one_is_not_the_middle() -> None:
    for kind, has_zeros in {"groups of 32": True, "symmetric": False}.items():
        assert pack_quantized(WEIGHTS[kind](8)).has_zeros == has_zeros
