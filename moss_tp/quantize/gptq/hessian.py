"""The Hessian of a linear's squared error, 2 X.T @ X / n, of the inputs X that it has seen.

Frantar et al. 2022 (GPTQ), section 3. What it costs is bounded: one matrix in fp32, whose upper
triangle alone is summed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.errors import CheckpointError
from moss_tp.quantize.gptq.factor import invert_factor_

_PIECE = 2048  # rows of the matrix that a product updates
_MAX_RAISES = 8


@dataclass(frozen=True)
class Curvature:
    """What the columns' quantization needs of a Hessian."""

    factor: Tensor  # (n, n) fp32: R of inv(H) = R.T @ R in the upper triangle
    order: Tensor | None  # (n,) int64: inputs as the factor has them; None for as they are
    damping: float  # share of the mean diagonal that was added to it


class Hessian:
    """Collects inputs. `size` is the linear's number of inputs."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._sum = torch.zeros(size, size, device=device)
        self._count = 0

    def add(self, inputs: Tensor) -> None:
        """Adds rows of `inputs (T, size)`."""
        x = inputs.float()
        for start in range(0, x.shape[1], _PIECE):
            rows = self._sum[start : start + _PIECE, start:]
            rows.addmm_(x[:, start : start + _PIECE].T, x[:, start:])
        self._count += len(x)

    def finish(self, damping: float, act_order: bool, group_size: int = 1) -> Curvature:
        """Its factor, in its own memory: call it once. `act_order` puts inputs of a large diagonal
        first; otherwise whole groups of `group_size` (1: none) are, see `_order_of_groups`. Where
        the matrix is not positive definite, tenfold damping is tried, and so on.

        Raises CheckpointError for inputs that are not finite.
        """
        matrix = self._matrix()
        diagonal = matrix.diagonal()
        if not bool(diagonal.isfinite().all()):
            raise CheckpointError("the model computes values that are not finite")
        if act_order:
            order: Tensor | None = _descending(diagonal)
        else:
            order = _order_of_groups(diagonal, group_size) if group_size > 1 else None
        diagonal[diagonal == 0] = 1  # an input that is always 0: its row and column are, too
        mean = float(diagonal.mean())
        if order is not None:
            matrix = matrix[order]
            matrix = matrix[:, order]
        return Curvature(matrix, order, _damp_and_invert_(matrix, mean, damping))

    def _matrix(self) -> Tensor:
        """The whole symmetric matrix; it leaves nothing behind."""
        matrix = self._sum.mul_(2 / max(self._count, 1))
        del self._sum
        for start in range(0, len(matrix), _PIECE):
            stop = start + _PIECE
            corner = matrix[start:stop, start:stop]
            corner.copy_(corner.triu() + corner.triu(1).T)
            matrix[stop:, start:stop] = matrix[start:stop, stop:].T
        return matrix


def _descending(values: Tensor) -> Tensor:
    return torch.argsort(values, dim=-1, descending=True, stable=True)


def _order_of_groups(diagonal: Tensor, group_size: int) -> Tensor:
    """Groups by their largest value, and within a group the large ones first: what act-order gains
    in part, while neighbours stay in a group.

    Gafni, Karnieli and Hanani 2025, arXiv 2505.14638 (group-aware reordering).
    """
    by_group = diagonal.view(-1, group_size)
    within = _descending(by_group)
    groups = _descending(by_group.amax(dim=1))
    return (within[groups] + groups[:, None] * group_size).flatten()


def _damp_and_invert_(matrix: Tensor, mean: float, damping: float) -> float:
    """Returns the damping with which it worked."""
    added = 0.0
    for raises in range(_MAX_RAISES):
        damp = damping * 10.0**raises
        matrix.diagonal().add_((damp - added) * mean)
        added = damp
        if invert_factor_(matrix):
            return damp
    raise CheckpointError(f"a Hessian is not positive definite even with a damping of {added:g}")
