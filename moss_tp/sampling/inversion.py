"""Where a uniform number falls in the cumulated weights of a row.

Sums are made in an order that a row's own length fixes. A plain sum over a whole vocabulary is
not: torch shares it out among threads where it is the only row.
"""

import torch.nn.functional as F
from torch import Tensor, arange, searchsorted

PART = 64  # consecutive weights that are summed up in fp32
MAX_UNIFORM = 1 - 2.0**-53


def invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Indices `(R, 1)` into fp64 `weights (R, N)`; an index of weight 0 is never returned.

    The last sum is what the numbers `(R, 1)`, all below 1, are scaled by, so one exceeds them.
    """
    cumulative = weights.cumsum(dim=-1)
    return searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)


def invert_whole(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Indices `(R,)` into fp32 `weights (R, N)`: first the part it is in, then where in it."""
    parts = _parts(weights)
    sums = parts.sum(dim=-1).double()
    part = invert(sums, uniforms)
    cumulative = sums.cumsum(dim=-1)
    size = sums.gather(1, part)
    before = cumulative.gather(1, (part - 1).clamp_(min=0)).masked_fill_(part == 0, 0)
    inside = ((uniforms * cumulative[:, -1:] - before) / size).clamp_(0, MAX_UNIFORM)
    members = parts[arange(len(parts), device=parts.device), part[:, 0]]  # (R, PART)
    return part[:, 0] * PART + invert(members.double(), inside)[:, 0]


def mass_of(weights: Tensor) -> Tensor:
    """Sums `(R, 1)` in fp64 of fp32 `weights (R, N)`."""
    return _parts(weights).sum(dim=-1).double().cumsum(dim=-1)[:, -1:]


def _parts(weights: Tensor) -> Tensor:
    """`(R, ceil(N / PART), PART)`, filled up with zeros."""
    num_weights = weights.shape[-1]
    return F.pad(weights, (0, -num_weights % PART)).view(len(weights), -1, PART)
