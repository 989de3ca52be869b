"""The values that a group of weights can have: a scale, a zero point and 2**bits levels.

    w = scale * (level - zero)

It does not know which group a weight is in. Weights are `(inputs, outputs)`, as published.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from moss_tp.errors import CheckpointError

# fp16's least and greatest numbers: scales are stored in it.
_LEAST, _GREATEST = 2.0**-24, 65504.0


class Scale(NamedTuple):
    """One group's, both fp32 `(outputs,)`: `scale` is a number of fp16, `zero` an integer of
    1 to 2**bits - 1, so that zero - 1 fits a published word and zero does once it is read."""

    scale: Tensor
    zero: Tensor


@dataclass(frozen=True)
class Grid:
    """`sym`: the zero point is the middle level."""

    bits: int
    sym: bool = False

    @property
    def top(self) -> int:
        """The highest level."""
        return (1 << self.bits) - 1

    def fit(self, weights: Tensor) -> Scale:
        """The levels from the least to the greatest of `weights (group, outputs)`, and 0.

        Raises CheckpointError for weights that are too large or not numbers.
        """
        low, high = weights.amin(0).clamp(max=0), weights.amax(0).clamp(min=0)
        if self.sym:
            high = torch.maximum(high, -low)
            low = -high
        scale = _in_fp16((high - low) / self.top)
        zero = torch.full_like(scale, self.top // 2 + 1) if self.sym else (-low / scale).round()
        # Without negative weights the lowest level would be 0, and the stored zero point -1.
        scale = torch.where(zero < 1, _in_fp16(high / (self.top - 1)), scale)
        return Scale(scale, zero.clamp(1, self.top))

    def round(self, weights: Tensor, to: Scale) -> Tensor:
        """The nearest levels, in fp32."""
        return (weights / to.scale).round_().add_(to.zero).clamp_(0, self.top)

    @staticmethod
    def values(levels: Tensor, of: Scale) -> Tensor:
        return (levels - of.zero) * of.scale


def _in_fp16(scale: Tensor) -> Tensor:
    if not bool((scale <= _GREATEST).all()):
        raise CheckpointError("there are weights too large for a scale in fp16, or not numbers")
    return torch.where(scale > 0, scale, 1.0).clamp(min=_LEAST).half().float()
