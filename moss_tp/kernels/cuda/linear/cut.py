"""Where a product's leaves are among its inputs, and how many pieces their sums are written in.

A piece is the sum of one leaf, or of two neighbours, in which case the first level of the tree is
its kernel's. That is as good, and writes less where rows are many.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.kernels.leaves import leaf_spans

MAX_PIECES = 8
# Up to so many rows more programs pay; above, memory does not for more than MANY_PIECES.
FEW_ROWS = 64
MANY_PIECES = 4


@dataclass(frozen=True)
class Cut:
    """Leaf i is inputs `[i * first, (i + 1) * first)`, then `[start + i * second, start + (i + 1) *
    second)`, where `start` is where the first ranges of all leaves end."""

    leaves: int
    first: int
    second: int = 0

    @property
    def start(self) -> int:
        return self.leaves * self.first

    @property
    def inputs(self) -> int:
        return self.leaves * (self.first + self.second)

    def is_even(self, depth: int) -> bool:
        """Whether both ranges have whole steps of `depth`."""
        return self.first % depth == self.second % depth == 0

    def inputs_of_leaves(self, device: torch.device) -> Sequence[Tensor]:
        """Of each leaf, in its order."""
        spans = leaf_spans(self.start, self.inputs - self.start, self.leaves)
        return [torch.tensor([*first, *second], device=device) for first, second in spans]


def check_pieces(pieces: Tensor, rows: tuple[int, ...], cut: Cut | None = None) -> None:
    """Raises ValueError unless they are fp32 `(P, *rows)`: one for each leaf of `cut`, or for each
    two, or without it any number up to MAX_PIECES."""
    if cut is None:
        is_fitting = 0 < len(pieces) <= MAX_PIECES
    else:
        is_fitting = len(pieces) in (cut.leaves, cut.leaves / 2)
    if not is_fitting or tuple(pieces.shape[1:]) != rows:
        raise ValueError(f"pieces {tuple(pieces.shape)} for {rows}, {cut}")
    if pieces.dtype != torch.float32 or not pieces.is_contiguous():
        raise ValueError("pieces are contiguous and fp32")


def num_pieces(leaves: int, rows: int) -> int:
    """Of that many leaves, a power of two, for a product of `rows` rows."""
    return leaves // 2 if rows > FEW_ROWS and leaves > MANY_PIECES else leaves


def max_pieces_rows(leaves: int, rows: int) -> int:
    """The most rows of pieces, of all pieces, in products of up to `rows` rows."""
    counts = (min(rows, FEW_ROWS), rows)
    return max(num_pieces(leaves, count) * count for count in counts)
