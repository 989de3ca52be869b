"""GPTQ against rounding to nearest, by the error of the linear's outputs."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moss_tp.quantize.gptq.columns import Rounded, quantize, round_to_nearest
from moss_tp.quantize.gptq.grid import Grid
from moss_tp.quantize.gptq.hessian import Curvature, Hessian
from moss_tp.quantize.gptq.layout import dequantized

INPUTS, OUTPUTS, RANK = 192, 64, 24
NUMBERS = torch.Generator().manual_seed(3)
# Correlated: of RANK directions, and a little noise; some inputs are large.
X = torch.randn(1000, RANK, generator=NUMBERS) @ torch.randn(RANK, INPUTS, generator=NUMBERS)
X += 0.3 * torch.randn(1000, INPUTS, generator=NUMBERS)
X[:, ::16] *= 8
W = torch.randn(INPUTS, OUTPUTS, generator=NUMBERS)
MAX_RATIO = 0.15  # measured: 0.03 to 0.08
GROUPS = (16, 32, 48, 64, 96, INPUTS)


def curvature(act_order: bool = False, x: Tensor = X, group_size: int = 1) -> Curvature:
    hessian = Hessian(INPUTS, torch.device("cpu"))
    hessian.add(x)
    return hessian.finish(damping=0.01, act_order=act_order, group_size=group_size)


def error(rounded: Rounded, bits: int, x: Tensor = X) -> float:
    """Mean square of the outputs'."""
    weight = dequantized(rounded, bits, torch.float32, None).weight
    return float((x @ (W - weight.T)).square().mean())


def ratio(found: Curvature, grid: Grid, group: int) -> float:
    """GPTQ's error as a share of that of rounding to nearest."""
    rounded = quantize(W.clone(), found, grid, group)
    return error(rounded, grid.bits) / error(round_to_nearest(W, grid, group), grid.bits)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_it_is_far_better_than_rounding_to_nearest(
    bits: int, sym: bool, act_order: bool, group: int
) -> None:
    assert ratio(curvature(act_order), Grid(bits, sym), group) < MAX_RATIO


@pytest.mark.parametrize("group", GROUPS)
def test_without_error_feedback_it_is_rounding_to_nearest(group: int) -> None:
    """The control of the test above: a factor without correlations passes no error on."""
    found = replace(curvature(), factor=torch.eye(INPUTS))
    assert ratio(found, Grid(4), group) == 1


def test_act_order_is_better_where_few_inputs_are_large() -> None:
    errors = [
        error(quantize(W.clone(), curvature(act_order), Grid(4), 32), 4)
        for act_order in (False, True)
    ]
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.parametrize("group", GROUPS)
def test_groups_with_large_inputs_first_are_as_published_and_better(group: int) -> None:
    x = X * torch.logspace(-1, 1, INPUTS)  # the last inputs are the largest
    plain, ordered = curvature(x=x), curvature(x=x, group_size=group)
    assert plain.order is None and ordered.order is not None
    assert ordered.order.tolist()[0] >= INPUTS - group
    rounded = quantize(W.clone(), ordered, Grid(4), group)
    assert torch.equal(rounded.groups, torch.arange(INPUTS).int() // group)
    assert error(rounded, 4, x) < error(quantize(W.clone(), plain, Grid(4), group), 4, x)


def test_act_order_groups_inputs_by_their_size() -> None:
    found = curvature(act_order=True)
    rounded = quantize(W.clone(), found, Grid(4), 32)
    assert found.order is not None
    assert torch.equal(rounded.groups[found.order], torch.arange(INPUTS).int() // 32)
    assert not torch.equal(rounded.groups, rounded.groups.sort().values)


def test_a_group_s_scale_is_of_corrected_weights() -> None:
    """Each group's levels use the whole range, which scales of the original weights would not."""
    rounded = quantize(W.clone(), curvature(), Grid(4), 16)
    nearest = round_to_nearest(W, Grid(4), 16)
    assert torch.equal(rounded.scales[0], nearest.scales[0])  # nothing is corrected yet
    assert not torch.equal(rounded.scales[1], nearest.scales[1])


def test_an_input_that_is_always_zero_is_rounded_to_nearest() -> None:
    x = X.clone()
    x[:, 5] = 0
    rounded = quantize(W.clone(), curvature(x=x), Grid(4), INPUTS)
    nearest = round_to_nearest(W, Grid(4), INPUTS)
    assert torch.equal(rounded.levels[5], nearest.levels[5])
    assert error(rounded, 4, x) / error(nearest, 4, x) < MAX_RATIO


def test_the_rows_of_a_step_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether errors go to later rows at once or in one product is a matter of speed."""
    results = []
    for rows in (128, 32):
        monkeypatch.setattr("moss_tp.quantize.gptq.columns._LAZY", rows)
        results.append(quantize(W.clone(), curvature(), Grid(4), 64).levels.int())
    different = (results[0] - results[1]).abs()
    assert int(different.max()) <= 1 and float(different.float().mean()) < 1e-3
