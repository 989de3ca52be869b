"""Inverse transform sampling: which index of a row's weights a uniform number selects.

The order of summation depends only on a row's length. torch's sum over a whole vocabulary does
not have that property: it splits the sum among threads when there is only one row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BIN_SIZE = 64  # consecutive weights that are summed first
MAX_UNIFORM = 1 - 2.0**-53


def invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Indices `(R, 1)` into fp64 `weights (R, N)`, never one of weight 0.

    `uniforms (R, 1)` are below 1, so scaled by the last cumulative sum they stay below it.
    """
    cumulative = weights.cumsum(dim=-1)
    return torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)


def invert_vocab(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Indices `(R,)` into fp64 `weights (R, N)` of a whole vocabulary: first the bin, then the
    index in it."""
    bins = _bins(weights)
    sums = bins.sum(dim=-1)
    bin_index = invert(sums, uniforms)
    cumulative = sums.cumsum(dim=-1)
    before = cumulative.gather(1, (bin_index - 1).clamp_(min=0)).masked_fill_(bin_index == 0, 0)
    within = (uniforms * cumulative[:, -1:] - before) / sums.gather(1, bin_index)
    members = bins[torch.arange(len(bins), device=bins.device), bin_index[:, 0]]  # (R, BIN_SIZE)
    offset = invert(members, within.clamp_(0, MAX_UNIFORM))
    return bin_index[:, 0] * BIN_SIZE + offset[:, 0]


def total_weight(weights: Tensor) -> Tensor:
    """fp64 sums `(R, 1)` of `weights (R, N)`."""
    return _bins(weights).sum(dim=-1).double().cumsum(dim=-1)[:, -1:]


def _bins(weights: Tensor) -> Tensor:
    """`(R, ceil(N / BIN_SIZE), BIN_SIZE)`, padded with zeros."""
    num_weights = weights.shape[-1]
    return F.pad(weights, (0, -num_weights % BIN_SIZE)).view(len(weights), -1, BIN_SIZE)
