"""The one factor that GPTQ needs of a Hessian, computed in its memory.

    inv(H) = R.T @ R, R upper triangular        H = U @ U.T, U upper triangular: R = inv(U)

One Cholesky decomposition, from the last column to the first, and one triangular inverse: half the
work of inverting and decomposing again, and no second matrix of H's size: 2.4 GB for MOSS's fc_out.
"""

import torch
from torch import Tensor

_PIECE = 1024  # columns of a step: large products, small temporaries


def invert_factor_(h: Tensor, piece: int = _PIECE) -> bool:
    """Overwrites the upper triangle of the symmetric `h` (n, n) with R.

    False if `h` is not positive definite: then it is as before. Below the diagonal pieces, `h`
    keeps its values; the rest of the lower triangle is zero.
    """
    corners = [h[a:b, a:b].clone() for a, b in _pieces(len(h), piece)]
    if not _decompose_(h, piece):
        _restore_(h, corners, piece)
        return False
    _invert_(h, piece)
    return True


def _pieces(length: int, piece: int) -> list[tuple[int, int]]:
    return [(start, min(start + piece, length)) for start in range(0, length, piece)]


def _decompose_(h: Tensor, piece: int) -> bool:
    """h = U @ U.T; U takes the upper triangle."""
    for start, stop in reversed(_pieces(len(h), piece)):
        corner = h[start:stop, start:stop]
        lower, info = torch.linalg.cholesky_ex(corner.flip(0, 1))
        if info or not bool(lower.isfinite().all()):
            return False
        corner.copy_(lower.flip(0, 1))
        panel = h[:start, start:stop]
        panel.copy_(torch.linalg.solve_triangular(corner.T, panel, upper=False, left=False))
        for top, bottom in _pieces(start, piece):
            h[top:bottom, top:start].addmm_(panel[top:bottom], panel[top:].T, alpha=-1)
    return True


def _invert_(u: Tensor, piece: int) -> None:
    """The inverse of the upper triangle takes its place."""
    for start, stop in _pieces(len(u), piece):
        corner, panel = u[start:stop, start:stop], u[:start, start:stop]
        eye = torch.eye(stop - start, dtype=u.dtype, device=u.device)
        corner.copy_(torch.linalg.solve_triangular(corner, eye, upper=True))
        for top, bottom in _pieces(start, piece):  # rows from `top` on are not yet overwritten
            product = u[top:bottom, top:start] @ panel[top:]
            panel[top:bottom] = (product @ corner).neg_()


def _restore_(h: Tensor, corners: list[Tensor], piece: int) -> None:
    pieces = _pieces(len(h), piece)
    for (start, stop), corner in zip(pieces, corners, strict=True):
        h[start:stop, start:stop] = corner
        h[:start, start:stop] = h[start:stop, :start].T
