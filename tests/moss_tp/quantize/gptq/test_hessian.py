"""Hessians of inputs that are alike, always zero, or too few."""

import pytest
import torch

from moss_tp.errors import CheckpointError
from moss_tp.quantize.gptq.hessian import Hessian

CPU = torch.device("cpu")


def inputs(rows: int, size: int) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(2))


def test_it_is_the_mean_of_the_inputs_products() -> None:
    x = inputs(100, 24)
    hessian = Hessian(24, CPU)
    for part in (x[:33], x[33:34], x[34:]):
        hessian.add(part)
    found = hessian.finish(damping=1e-6, act_order=False)
    upper = found.factor.triu()
    expected = 2 * x.T @ x / 100
    torch.testing.assert_close(torch.linalg.inv(upper.T @ upper), expected, rtol=1e-3, atol=1e-3)
    assert found.damping == 1e-6 and found.order is None


def test_act_order_puts_large_inputs_first() -> None:
    x = inputs(100, 4) * torch.tensor([1.0, 0, 5, 2])
    hessian = Hessian(4, CPU)
    hessian.add(x)
    found = hessian.finish(damping=0.01, act_order=True)
    assert found.order is not None and found.order.tolist() == [2, 3, 0, 1]
    ordered = Hessian(4, CPU)
    ordered.add(x[:, found.order])
    same = ordered.finish(damping=0.01, act_order=False)
    torch.testing.assert_close(found.factor.triu(), same.factor.triu())


def test_groups_of_large_inputs_come_first() -> None:
    hessian = Hessian(6, CPU)
    hessian.add(inputs(100, 6) * torch.tensor([1.0, 2, 3, 9, 5, 4]))
    found = hessian.finish(damping=0.01, act_order=False, group_size=2)
    assert found.order is not None and found.order.tolist() == [3, 2, 4, 5, 1, 0]


def test_an_input_that_is_always_zero_has_a_row_of_its_own() -> None:
    x = inputs(100, 6)
    x[:, 3] = 0
    hessian = Hessian(6, CPU)
    hessian.add(x)
    found = hessian.finish(damping=0.01, act_order=False)
    upper = found.factor.triu()
    others = [0, 1, 2, 4, 5]
    assert found.damping == 0.01 and float(upper[3, 3]) > 0
    assert not upper[3, others].any() and not upper[others, 3].any()


def test_damping_is_raised_until_the_matrix_is_positive_definite() -> None:
    """The same input twice, and rounding makes the smallest eigenvalue negative."""
    x = inputs(4, 64).repeat(1, 2)
    hessian = Hessian(128, CPU)
    hessian.add(x)
    found = hessian.finish(damping=1e-12, act_order=False)
    assert found.damping > 1e-12 and bool(found.factor.isfinite().all())


def test_values_that_are_not_finite_are_refused() -> None:
    hessian = Hessian(4, CPU)
    hessian.add(torch.full((2, 4), float("inf")))
    with pytest.raises(CheckpointError, match="not finite"):
        hessian.finish(damping=0.01, act_order=False)
