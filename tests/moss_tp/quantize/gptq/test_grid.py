"""What a group of weights can become."""

import pytest
import torch

from moss_tp.errors import CheckpointError
from moss_tp.quantize.gptq.grid import Grid


def weights(low: float, high: float) -> torch.Tensor:
    """A column that has both, and a few between."""
    return torch.linspace(low, high, 33)[:, None]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-1, 2), (-3, 0.5), (0.1, 2), (-2, -0.1), (1e-3, 2e-3)])
def test_rounding_is_off_by_a_step_at_most(bits: int, sym: bool, low: float, high: float) -> None:
    grid, w = Grid(bits, sym), weights(low, high)
    scale = grid.fit(w)
    levels = grid.round(w, scale)
    error = (grid.values(levels, scale) - w).abs()
    # Half of one, and at the range's ends as much again, for 0 is at a whole level.
    assert float(error.max()) <= 1.01 * float(scale.scale)
    assert float(levels.min()) >= 0 and float(levels.max()) <= 2**bits - 1
    assert 1 <= float(scale.zero) <= 2**bits - 1
    assert torch.equal(scale.scale, scale.scale.half().float())


def test_the_zero_point_of_symmetric_levels_is_in_the_middle() -> None:
    assert float(Grid(4, sym=True).fit(weights(-1, 3)).zero) == 8
    assert float(Grid(8, sym=True).fit(weights(-1, 3)).zero) == 128


def test_zero_stays_zero() -> None:
    for w in (weights(-1, 3), weights(1, 3), weights(-3, -1), weights(0, 0)):
        grid = Grid(4)
        scale = grid.fit(w)
        zero = torch.zeros(1, 1)
        assert grid.values(grid.round(zero, scale), scale) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e7])
def test_weights_that_have_no_scale_are_refused(value: float) -> None:
    with pytest.raises(CheckpointError, match="too large for a scale in fp16, or not numbers"):
        Grid(4).fit(weights(-value, value))
