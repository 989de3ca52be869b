"""Fills tensors with random values, whichever device they are on.

Those of the host are drawn in pieces by a generator of the device, which is faster by far.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_PIECE = 1 << 24


def fill_normal(x: Tensor, std: float, numbers: torch.Generator) -> None:
    _fill(x, lambda part: part.normal_(0, std, generator=numbers), numbers)


def fill_words(x: Tensor, numbers: torch.Generator) -> None:
    """int32 of which each bit is random."""
    _fill(x, lambda part: part.random_(-(2**31), 2**31, generator=numbers), numbers)


def _fill(x: Tensor, draw: Callable[[Tensor], Tensor], numbers: torch.Generator) -> None:
    for piece in _pieces(x):
        if piece.device == numbers.device:
            draw(piece)
        else:
            piece.copy_(draw(torch.empty(piece.shape, dtype=piece.dtype, device=numbers.device)))


def _pieces(x: Tensor) -> Iterator[Tensor]:
    """`x` as views of about _PIECE elements."""
    rows = max(1, _PIECE // max(1, x.stride(0)))
    return (x[start : start + rows] for start in range(0, x.shape[0], rows))
