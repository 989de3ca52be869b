"""The factor of a Hessian's inverse, against torch's own inverse."""

import pytest
import torch
from torch import Tensor

from moss_tp.quantize.gptq.factor import invert_factor_


def positive_definite(size: int) -> Tensor:
    inputs = torch.randn(2 * size, size, generator=torch.Generator().manual_seed(1)).double()
    return inputs.T @ inputs


@pytest.mark.parametrize("piece", [1, 7, 32, 60, 1000])
def test_the_factor_makes_up_the_inverse(piece: int) -> None:
    h = positive_definite(60)
    factor = h.clone()
    assert invert_factor_(factor, piece)
    upper = factor.triu()
    torch.testing.assert_close(upper.T @ upper, torch.linalg.inv(h))


def test_it_is_computed_in_the_matrix_s_own_memory() -> None:
    h = positive_definite(60)
    place = h.data_ptr()
    assert invert_factor_(h, 16) and h.data_ptr() == place


@pytest.mark.parametrize("piece", [7, 60])
@pytest.mark.parametrize("column", [0, 30, 59])
def test_a_matrix_that_is_not_positive_definite_stays_as_it_was(piece: int, column: int) -> None:
    h = positive_definite(60)
    h[column, column] = -1
    tried = h.clone()
    assert not invert_factor_(tried, piece)
    assert torch.equal(tried, h)
