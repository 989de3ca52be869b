"""Packed linear layers against F.linear in fp64.

Tolerance: sums of up to 1100 products of size ~1/33 in fp32, in another order: 1e-5. The weights
are what they are, in bf16 too, since nothing else is rounded there.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.block import MakeLinear
from moss_tp.kernels.cpu.block import PanelLinear
from moss_tp.kernels.cpu.gemm import MAX_TASK_ROWS
from moss_tp.kernels.cpu.onednn import OneDnnLinear
from moss_tp.kernels.eager import PlainLinear

LINEARS: dict[str, tuple[MakeLinear, torch.dtype]] = {
    "plain": (PlainLinear, torch.float32),
    "onednn": (OneDnnLinear, torch.float32),
    "panels": (PanelLinear, torch.bfloat16),
}
# Around a panel's 16, a group's 64 columns, and one block of K more.
SHAPES = [(1, 1), (15, 3), (64, 64), (65, 30), (130, 1100)]
ROWS = [*range(9), 13, MAX_TASK_ROWS + 1]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def exact(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", LINEARS)
def test_equals_torchs(name: str, rows: int) -> None:
    make, dtype = LINEARS[name]
    for outputs, inputs in SHAPES:
        weight = (random(outputs, inputs) / inputs**0.5).to(dtype)
        bias, x, residual = random(outputs).to(dtype), random(rows, inputs), random(rows, outputs)
        y = exact(x, weight, bias)
        close(make(weight, bias, False)(x), y)
        close(make(weight, None, False)(x, residual), exact(x, weight, None) + residual)
        close(make(weight, bias, True)(x), F.gelu(y, approximate="tanh"))


def close(y: Tensor, expected: Tensor) -> None:
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)


def test_gelu_far_from_zero() -> None:
    """Where exp overflows or vanishes."""
    x = torch.tensor([[-1e4], [-60], [-9], [-0.0], [9], [60], [1e4]])
    y = PanelLinear(torch.ones(1, 1).bfloat16(), None, True)(x)
    close(y, F.gelu(x.double(), approximate="tanh"))


def test_panel_rows_do_not_depend_on_their_company() -> None:
    linear = PanelLinear(random(130, 1100).bfloat16(), None)
    x = random(MAX_TASK_ROWS + 20, 1100)
    together = linear(x)
    for count in range(1, 14):
        assert torch.equal(linear(x[:count]), together[:count])


def test_strided_rows() -> None:
    linear = PanelLinear(random(20, 30).bfloat16(), None)
    wide = random(5, 50)
    assert torch.equal(linear(wide[:, 10:40]), linear(wide[:, 10:40].contiguous()))
