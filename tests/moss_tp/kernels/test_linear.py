"""Packed linear layers against F.linear in fp64, on every multiply-add that this machine has.

Tolerance: sums of up to 1100 products of size ~1/33 in fp32, in another order: 1e-5. Weights and
x are drawn in the weight's dtype, so nothing is rounded.
"""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, MakeLinear
from moss_tp.kernels.cpu.linear.gemm import PACKERS
from moss_tp.kernels.cpu.linear.gemm_kernel import MAX_TASK_ROWS
from moss_tp.kernels.cpu.linear.pack import PackedWeight, best_mul_add, pack_dense, weight_dtype
from moss_tp.kernels.cpu.linear.panel import PanelLinear
from moss_tp.kernels.cpu.microkernel.mul_add import (
    DOT_X16_BF16,
    FMA_X8_BF16,
    FMA_X8_FP16,
    FMA_X8_FP32,
    FMA_X16_FP16,
    FMA_X16_FP32,
    MulAdd,
)
from moss_tp.kernels.reference.linear import PlainLinear
from moss_tp.native.vectors import has_cpu_feature

MUL_ADDS: dict[str, MulAdd] = {
    "fma8-bf16": FMA_X8_BF16,
    "fma8-fp16": FMA_X8_FP16,
    "fma8-fp32": FMA_X8_FP32,
}
if has_cpu_feature("avx512f"):
    MUL_ADDS |= {"fma16-fp16": FMA_X16_FP16, "fma16-fp32": FMA_X16_FP32}
if has_cpu_feature("avx512bf16"):
    MUL_ADDS["dot-bf16"] = DOT_X16_BF16
LINEARS: dict[str, tuple[MakeLinear, torch.dtype]] = {
    "plain": (PlainLinear, torch.float32),
    **{
        name: (partial(PanelLinear, mul_add=mul_add), weight_dtype(mul_add))
        for name, mul_add in MUL_ADDS.items()
    },
}
# Around a panel's 16 columns, a group's 64, and one K block more.
SHAPES = [(1, 2), (15, 6), (64, 64), (65, 30), (130, 1100)]
ROWS = [*range(14), 17, 25, MAX_TASK_ROWS + 1]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def expected(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", LINEARS)
def test_equals_torch(name: str, rows: int) -> None:
    make, dtype = LINEARS[name]
    for outputs, inputs in SHAPES:
        weight = (random(outputs, inputs) / inputs**0.5).to(dtype)
        bias, residual = random(outputs).to(dtype), random(rows, outputs)
        x = random(rows, inputs).to(dtype).float()
        y = expected(x, weight, bias)
        assert_close(make(DenseWeight(weight, bias), False)(x), y)
        assert_close(
            make(DenseWeight(weight), False)(x, residual), expected(x, weight, None) + residual
        )
        assert_close(make(DenseWeight(weight, bias), True)(x), F.gelu(y, approximate="tanh"))


def assert_close(y: Tensor, exact: Tensor) -> None:
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), exact, atol=1e-5, rtol=1e-5)


def test_gelu_far_from_zero() -> None:
    """Where exp overflows or vanishes."""
    x = torch.tensor([[-1e4], [-60], [-9], [-0.0], [9], [60], [1e4]]).bfloat16().float()
    y = PanelLinear(DenseWeight(torch.ones(1, 1).bfloat16()), True)(x)
    assert_close(y, F.gelu(x.double(), approximate="tanh"))


@pytest.mark.parametrize("name", MUL_ADDS)
def test_strided_rows(name: str) -> None:
    make, dtype = LINEARS[name]
    linear = make(DenseWeight(random(20, 30).to(dtype)), False)
    wide = random(5, 50)
    assert torch.equal(linear(wide[:, 10:40]), linear(wide[:, 10:40].contiguous()))


def test_mismatches_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        pack_dense(DenseWeight(random(5, 8).double()))
    with pytest.raises(ValueError, match="float32"):
        pack_dense(DenseWeight(random(5, 8)), FMA_X8_BF16)
    linear = PanelLinear(DenseWeight(random(5, 8).bfloat16()))
    with pytest.raises(ValueError, match="for 8 in"):
        linear(random(3, 6))
    with pytest.raises(ValueError, match="for 8 in"):
        linear(random(8, 3).T)


def test_an_odd_input_needs_no_bf16_pairs() -> None:
    assert best_mul_add(torch.bfloat16, 7) is FMA_X8_BF16
    x, weight = random(3, 7), random(5, 7).bfloat16()
    assert pack_dense(DenseWeight(weight)).x_dtype == torch.float32
    assert_close(PanelLinear(DenseWeight(weight))(x), expected(x, weight, None))


@dataclass(frozen=True)
class ScaledWeight:
    """A weight type without kernels: int8 and one scale."""

    values: Tensor
    scale: float
    dtype: torch.dtype

    @property
    def outputs(self) -> int:
        return self.values.shape[0]

    @property
    def inputs(self) -> int:
        return self.values.shape[1]

    def concat_inputs(self, other: "ScaledWeight") -> "ScaledWeight":
        values = torch.cat((self.values, other.values), dim=1)
        return ScaledWeight(values, self.scale, self.dtype)

    def dense(self) -> DenseWeight:
        return DenseWeight((self.values * self.scale).to(self.dtype))


def scaled_weight(dtype: torch.dtype) -> ScaledWeight:
    return ScaledWeight((random(5, 8) * 40).to(torch.int8), 2**-6, dtype)


@pytest.mark.parametrize("name", LINEARS)
def test_a_weight_type_without_a_kernel_is_multiplied_densely(name: str) -> None:
    make, dtype = LINEARS[name]
    weight, x = scaled_weight(dtype), random(3, 8).to(dtype).float()
    assert_close(make(weight, False)(x), expected(x, weight.dense().weight, None))


def test_a_weight_type_with_a_packer_is_packed_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """This one doubles the weight, so that its result is recognised."""

    def pack_doubled(weight: ScaledWeight, mul_add: MulAdd | None, leaves: object) -> PackedWeight:
        return pack_dense(DenseWeight(weight.dense().weight * 2), mul_add)

    weight, x = scaled_weight(torch.bfloat16), random(3, 8)
    plain = PanelLinear(weight)(x)
    monkeypatch.setitem(PACKERS, ScaledWeight, pack_doubled)
    assert torch.equal(PanelLinear(weight)(x), plain * 2)


def test_concatenated_inputs_add_up() -> None:
    x, y = random(3, 6), random(3, 8)
    first, second = DenseWeight(random(5, 6), random(5)), DenseWeight(random(5, 8))
    total = PlainLinear(first)(x) + PlainLinear(second)(y)
    both = torch.cat((x, y), dim=1)
    assert_close(PlainLinear(first.concat_inputs(second))(both), total.double())
    twice = first.concat_inputs(DenseWeight(second.weight, first.bias))
    assert twice.bias is not None and first.bias is not None
    assert torch.equal(twice.bias, 2 * first.bias)


def test_a_kept_program_takes_other_tensors() -> None:
    """Calls of one shape share a program: also where x was its own residual at first."""
    linear = PanelLinear(DenseWeight(random(20, 20).bfloat16()), mul_add=FMA_X8_BF16)
    x, other = random(3, 20), random(3, 20) * 2
    plain = linear(x)
    assert torch.equal(linear(other), plain * 2)
    assert torch.equal(linear(x, x), plain + x)
    assert torch.equal(linear(x, other), plain + other)
    assert torch.equal(linear(x), plain)
