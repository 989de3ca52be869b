"""LayerNorm, and the sums of a product's pieces that come before it. Kernel or reference."""

import torch
from torch import Tensor

from moss_tp.kernels.cuda.linear import reference
from moss_tp.kernels.cuda.linear.cut import check_pieces
from moss_tp.kernels.cuda.linear.norm_kernel import norm_kernel, tree_kernel
from moss_tp.kernels.cuda.runtime.device import check_aligned
from moss_tp.kernels.cuda.runtime.jit import next_power_of_2, options
from moss_tp.kernels.cuda.runtime.launches import count_launch
from moss_tp.kernels.cuda.runtime.switch import uses_triton
from moss_tp.kernels.leaves import add_tree

NUM_WARPS = 16
TREE_BLOCK, TREE_WARPS = 1024, 4

Norm = tuple[Tensor, Tensor, float]  # weight and bias (hidden,), epsilon


def layer_norm(x: Tensor, norm: Norm, out: Tensor, rows: Tensor | None = None) -> None:
    """LayerNorm of `x (T, hidden)`, or of its `rows (R,)` int32, to `out (T or R, hidden)`.

    Raises ValueError where they do not fit together, and where the kernel would run on a tensor
    (but for `rows`) that does not begin at a multiple of 16 bytes.
    """
    _check(x, out, norm[0], norm[1])
    if len(out) != len(x if rows is None else rows):
        raise ValueError(f"{len(out)} rows of {tuple(x.shape)}")
    if rows is not None and (rows.dtype != torch.int32 or not rows.is_contiguous()):
        raise ValueError(f"rows are {rows.dtype}, not contiguous int32")
    if not len(out):
        return
    count_launch("norm")
    if uses_triton(x):
        _launch(len(x), out, residual=x, index=rows, norm=norm, normed=out)
    else:
        reference.layer_norm(x, *norm, out, rows)


def add_pieces(
    pieces: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    out: Tensor,
    norm: Norm | None = None,
    normed: Tensor | None = None,
) -> None:
    """`pieces (P, T, hidden)` fp32, added up as a tree, + bias + residual, to `out (T, hidden)`,
    which may be the residual itself; LayerNorm of what is stored there to `normed`.

    `normed` has the bits that `layer_norm` of `out` has. Raises ValueError as it does.
    """
    _check(out, bias, *(() if norm is None else norm[:2]))
    for rows in (residual, normed):
        if rows is not None and rows.shape != out.shape:
            raise ValueError(f"{tuple(rows.shape)} beside {tuple(out.shape)}")
        _check(out, out if rows is None else rows)
    check_pieces(pieces, tuple(out.shape))
    if (norm is None) != (normed is None):
        raise ValueError("a norm without an output, or the other way round")
    if not len(out):
        return
    count_launch("add_pieces")
    if uses_triton(out):
        _launch(len(out), out, pieces, bias, residual, x=out, norm=norm, normed=normed)
        return
    reference.add_pieces(pieces, bias, residual, out)
    if norm is not None and normed is not None:
        reference.layer_norm(out, *norm, normed)


def sum_pieces(pieces: Tensor) -> Tensor:
    """`pieces (P, T, hidden)` fp32, added up as a tree: `(T, hidden)`, in place of the first.

    Raises ValueError as `add_pieces` does.
    """
    check_pieces(pieces, tuple(pieces.shape[1:]))
    if pieces[0].numel() and len(pieces) > 1:
        count_launch("sum_pieces")
        if uses_triton(pieces):
            check_aligned(pieces)
            size = pieces[0].numel()
            tree_kernel[(-(-size // TREE_BLOCK),)](
                pieces, size, len(pieces), BLOCK=TREE_BLOCK, **options(TREE_WARPS, 1)
            )
        else:
            pieces[0].copy_(add_tree(pieces.unbind()))
    return pieces[0]


def _launch(
    rows: int,
    any_rows: Tensor,  # stands for what a launch leaves out
    pieces: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    index: Tensor | None = None,
    x: Tensor | None = None,
    norm: Norm | None = None,
    normed: Tensor | None = None,
) -> None:
    hidden = any_rows.shape[1]
    weight, shift, eps = norm or (any_rows, any_rows, 1.0)

    def given(tensor: Tensor | None, dtype: torch.dtype = any_rows.dtype) -> Tensor:
        # Of the right type, for that is part of what is compiled.
        return any_rows.new_empty(0, dtype=dtype) if tensor is None else tensor

    first, added = given(pieces, torch.float32), (given(bias), given(residual))
    outs = (given(x), weight, shift, given(normed))
    check_aligned(first, *added, *outs)
    norm_kernel[(len(any_rows),)](
        first, *added, given(index, torch.int32), *outs,
        rows, 0 if pieces is None else len(pieces), hidden, eps,
        int(residual is not None), int(index is not None), int(x is not None),
        int(normed is not None), **constants(hidden), **options(NUM_WARPS, 1),
    )  # fmt: skip


def constants(hidden: int) -> dict[str, int]:
    return {"BLOCK": next_power_of_2(hidden)}


def _check(x: Tensor, *others: Tensor) -> None:
    for tensor in (x, *others):
        if tensor.dtype != x.dtype or tensor.device != x.device or not tensor.is_contiguous():
            raise ValueError(f"{tensor.dtype} on {tensor.device}, strides {tensor.stride()}")
        if tensor.shape[-1] != x.shape[-1] or tensor.dim() not in (1, 2):
            raise ValueError(f"{tuple(tensor.shape)} beside {tuple(x.shape)}")
