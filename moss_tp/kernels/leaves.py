"""The leaves of a block: what makes its sums the same on any number of ranks.

The inputs of out_proj and fc_out are cut into the same leaves whatever the number of ranks. Leaf i
is a part of out_proj's inputs and then one of fc_out's, summed up in one order. The sums of leaves,
in fp32, are added as a fixed binary tree, of which a rank has a subtree:

    ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))       8 leaves
      rank 0    rank 1      rank 2    rank 3        2 on each of 4 ranks

How many there are is the model's config's to say. Bias and residual come after the last sum.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def leaf_spans(width: int, inner: int, leaves: int) -> tuple[tuple[range, range], ...]:
    """The inputs of each leaf, in the order in which it adds them up: of out_proj, which has
    `width` inputs, then of fc_out, whose `inner` inputs follow out_proj's in `concat_inputs`.

    Raises ValueError where leaves do not divide them.
    """
    if width % leaves or inner % leaves:
        raise ValueError(f"{leaves} leaves of {width} and {inner} inputs")
    first, second = width // leaves, inner // leaves
    return tuple(
        (
            range(leaf * first, (leaf + 1) * first),
            range(width + leaf * second, width + (leaf + 1) * second),
        )
        for leaf in range(leaves)
    )


def num_merges(leaf: int) -> int:
    """How many sums of two subtrees follow on `leaf`, when leaves come one after the other: its
    trailing one bits."""
    return (~leaf & (leaf + 1)).bit_length() - 1


def add_tree(parts: Sequence[Tensor]) -> Tensor:
    """The sum of neighbours, of their sums, and so on, in fp32; an odd last one is carried up."""
    sums = [part.to(torch.float32) for part in parts]
    while len(sums) > 1:
        pairs = [left + right for left, right in zip(sums[::2], sums[1::2], strict=False)]
        sums = pairs + sums[2 * len(pairs) :]
    return sums[0]
