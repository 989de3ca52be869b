"""How a product's sums are cut into leaves, see `kernels.leaves`, and added as their tree.

A packed weight has the inputs of each leaf side by side; x has them as its producers write them. So
a product goes span by span, where the inputs of a span lie side by side in both. While it adds up a
leaf, sums of subtrees that wait for their neighbour are kept, each on a level of its own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from moss_tp.kernels.leaves import num_merges
from moss_tp.native.compiled import inner

Leaves = Sequence[Sequence[range]]  # of each leaf, the inputs in the order in which it adds them up

INSIDE = -1  # in place of merges: the leaf goes on


def whole(inputs: int) -> Leaves:
    """All inputs as one leaf."""
    return ((range(inputs),),)


def joined(leaves: Leaves) -> Leaves:
    """The same leaves, with ranges of a leaf that follow each other as one."""
    return tuple(tuple(_joined(ranges)) for ranges in leaves)


def _joined(ranges: Sequence[range]) -> list[range]:
    out = [ranges[0]]
    for before, own in pairwise(ranges):
        if own.start == before.stop:
            out[-1] = range(out[-1].start, own.stop)
        else:
            out.append(own)
    return out


def merges_of(leaves: Leaves) -> list[int]:
    """Of each range: how often two subtrees are added behind it, or INSIDE."""
    return [
        num_merges(number) if index == len(ranges) - 1 else INSIDE
        for number, ranges in enumerate(leaves)
        for index in range(len(ranges))
    ]


def num_levels(num_leaves: int) -> int:
    """Of sums that are kept at the same time."""
    return num_leaves.bit_length()


@inner
def end_span(sums: Any, level: int, merges: int) -> int:
    """Adds up subtrees behind a span whose sums are on `level` of `sums (levels, rows, GROUP)`.
    Returns the level for the sums of the next span, where zeros are."""
    if merges < 0:
        return level
    for _ in range(merges):
        left, right = sums[level - 1], sums[level]
        for i in range(left.shape[0]):
            for j in range(left.shape[1]):
                left[i, j] += right[i, j]
                right[i, j] = np.float32(0)
        level -= 1
    return level + 1
