"""Packed linear layers against F.linear in fp64.

Tolerance: sums of up to 1100 products of size ~1/33 in fp32, in another order: 1e-5. The weights
are what they are, in bf16 too, and so is x where a product takes it in bf16: nothing is rounded.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, MakeLinear
from moss_tp.kernels.cpu.block import PanelLinear
from moss_tp.kernels.cpu.gemm import MAX_TASK_ROWS, Packed, best_product
from moss_tp.kernels.cpu.onednn import OneDnnLinear
from moss_tp.kernels.cpu.products import DOT_BF16, WIDE_BF16, Product
from moss_tp.kernels.cpu.vectors import has_instructions
from moss_tp.kernels.reference.block import PlainLinear

PRODUCTS: list[Product] = [WIDE_BF16]
if has_instructions("avx512bf16"):
    PRODUCTS.append(DOT_BF16)
LINEARS: dict[str, tuple[MakeLinear, torch.dtype]] = {
    "plain": (PlainLinear, torch.float32),
    "onednn": (OneDnnLinear, torch.float32),
    **{
        f"panels-{i}": (partial(PanelLinear, product=product), torch.bfloat16)
        for i, product in enumerate(PRODUCTS)
    },
}
# Around a panel's 16 columns, a group's, and one block of K more.
SHAPES = [(1, 2), (15, 6), (64, 64), (65, 30), (130, 1100)]
ROWS = [*range(14), 17, 25, MAX_TASK_ROWS + 1]


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
        bias, residual = random(outputs).to(dtype), random(rows, outputs)
        x = random(rows, inputs).to(dtype).float()
        y = exact(x, weight, bias)
        close(make(DenseWeight(weight, bias), False)(x), y)
        close(make(DenseWeight(weight), False)(x, residual), exact(x, weight, None) + residual)
        close(make(DenseWeight(weight, bias), True)(x), F.gelu(y, approximate="tanh"))


def close(y: Tensor, expected: Tensor) -> None:
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)


def test_gelu_far_from_zero() -> None:
    """Where exp overflows or vanishes."""
    x = torch.tensor([[-1e4], [-60], [-9], [-0.0], [9], [60], [1e4]]).bfloat16().float()
    y = PanelLinear(DenseWeight(torch.ones(1, 1).bfloat16()), True)(x)
    close(y, F.gelu(x.double(), approximate="tanh"))


@pytest.mark.parametrize("product", PRODUCTS)
def test_panel_rows_do_not_depend_on_their_company(product: Product) -> None:
    linear = PanelLinear(DenseWeight(random(130, 1100).bfloat16()), product=product)
    x = random(MAX_TASK_ROWS + 20, 1100)
    together = linear(x)
    for count in range(1, 28):
        assert torch.equal(linear(x[:count]), together[:count])


@pytest.mark.parametrize("product", PRODUCTS)
def test_strided_rows(product: Product) -> None:
    linear = PanelLinear(DenseWeight(random(20, 30).bfloat16()), product=product)
    wide = random(5, 50)
    assert torch.equal(linear(wide[:, 10:40]), linear(wide[:, 10:40].contiguous()))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        Packed.pack(DenseWeight(random(5, 8)))
    linear = PanelLinear(DenseWeight(random(5, 8).bfloat16()))
    with pytest.raises(ValueError, match="for 8 in"):
        linear(random(3, 6))
    with pytest.raises(ValueError, match="for 8 in"):
        linear(random(8, 3).T)


def test_an_odd_input_has_no_pairs() -> None:
    assert best_product(7) is WIDE_BF16
    x, weight = random(3, 7), random(5, 7).bfloat16()
    assert Packed.pack(DenseWeight(weight)).takes == torch.float32
    close(PanelLinear(DenseWeight(weight))(x), exact(x, weight, None))
