"""GPTQ: rounds a weight input by input, and has the inputs that are left make up for the error.

Frantar et al. 2022, algorithm 1. A row here is one input's weights: published weights are stored
`(inputs, outputs)`, which also keeps what a step touches together.

    error = (w[i] - rounded) / R[i, i]        w[j] -= R[i, j] * error for all j > i
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.quantize.gptq.grid import Grid, Scale
from moss_tp.quantize.gptq.hessian import Curvature

_LAZY = 128  # rows after which the error goes to all later rows, in one product


@dataclass(frozen=True)
class Rounded:
    """A weight on its grid."""

    levels: Tensor  # (inputs, outputs) uint8
    scales: Tensor  # (groups, outputs) fp16
    zeros: Tensor  # (groups, outputs) int16, 1 to 2**bits - 1
    groups: Tensor  # (inputs,) int32


def round_to_nearest(weight: Tensor, grid: Grid, group_size: int) -> Rounded:
    """Of `weight (inputs, outputs)` fp32, without any calibration."""
    rounded = _Rows(weight, grid)
    for start in range(0, len(weight), group_size):
        scale = rounded.begin_group(weight[start : start + group_size])
        rounded.levels[start : start + group_size] = grid.round(
            weight[start : start + group_size], scale
        ).byte()
    return rounded.done(_groups(weight, group_size))


def quantize(weight: Tensor, curvature: Curvature, grid: Grid, group_size: int) -> Rounded:
    """Of `weight (inputs, outputs)` fp32, which is overwritten. A group's scale is of the weights
    as they are, corrected, when its first row is rounded."""
    order, factor = curvature.order, curvature.factor
    if order is not None:
        weight = weight[order]
    rounded = _Rows(weight, grid)
    for start, stop in _lazy_spans(len(weight), group_size):
        errors = _round_rows(weight[start:stop], start, rounded, factor, group_size)
        if stop < len(weight):
            weight[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    groups = _groups(weight, group_size)
    if order is None:
        return rounded.done(groups)
    places = torch.argsort(order)
    return _by_neighbours(rounded.done(groups[places], places), group_size)


def _by_neighbours(rounded: Rounded, group_size: int) -> Rounded:
    """The same weight with its groups in the order of their inputs, where each is of neighbours."""
    by_group = rounded.groups.view(-1, group_size)
    places = by_group[:, 0].long()
    if not bool((by_group == by_group[:, :1]).all()):
        return rounded  # act-order
    groups = torch.arange(len(places), device=places.device).repeat_interleave(group_size).int()
    scales, zeros = rounded.scales[places], rounded.zeros[places]
    return Rounded(rounded.levels, scales, zeros, groups)


def _round_rows(
    rows: Tensor, start: int, rounded: "_Rows", factor: Tensor, group_size: int
) -> Tensor:
    """Rounds the rows from `start` on, and corrects those among them; their errors (n, outputs)."""
    errors = torch.empty_like(rows)
    for i in range(len(rows)):
        if (start + i) % group_size == 0:
            # All of a group that spans more rows than these was corrected up to here.
            rounded.begin_group(rounded.weight[start + i : start + i + group_size])
        level = rounded.grid.round(rows[i], rounded.scale)
        rounded.levels[start + i] = level.byte()
        value = rounded.grid.values(level, rounded.scale)
        errors[i] = (rows[i] - value) / factor[start + i, start + i]
        later = factor[start + i, start + i + 1 : start + len(rows), None]
        rows[i + 1 :].addmm_(later, errors[i : i + 1], alpha=-1)  # addr_ is far slower
    return errors


def _lazy_spans(inputs: int, group_size: int) -> Iterator[tuple[int, int]]:
    """Spans of about _LAZY rows: whole groups or parts of one, so that a group begins where every
    earlier error has arrived."""
    step = group_size * max(1, _LAZY // group_size)
    for outer in range(0, inputs, step):
        for start in range(outer, min(outer + step, inputs), _LAZY):
            yield start, min(start + _LAZY, outer + step, inputs)


def _groups(weight: Tensor, group_size: int) -> Tensor:
    return (torch.arange(len(weight), device=weight.device) // group_size).int()


class _Rows:
    """The rounded rows of `weight` so far, and the scale of the current group."""

    def __init__(self, weight: Tensor, grid: Grid) -> None:
        self.weight, self.grid = weight, grid
        self.levels = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
        self._scales: list[Scale] = []

    @property
    def scale(self) -> Scale:
        return self._scales[-1]

    def begin_group(self, weights: Tensor) -> Scale:
        self._scales.append(self.grid.fit(weights))
        return self.scale

    def done(self, groups: Tensor, places: Tensor | None = None) -> Rounded:
        """`places` are where the rows were before they were put into another order."""
        return Rounded(
            levels=self.levels if places is None else self.levels[places],
            scales=torch.stack([scale.scale for scale in self._scales]).half(),
            zeros=torch.stack([scale.zero for scale in self._scales]).short(),
            groups=groups,
        )
