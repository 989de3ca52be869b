"""Products with a weight `(outputs, inputs)`, whole or leaf by leaf. Kernels or reference."""

from dataclasses import replace

from torch import Tensor

from moss_tp.kernels.cuda.linear import reference
from moss_tp.kernels.cuda.linear.cut import Cut, check_pieces
from moss_tp.kernels.cuda.linear.gemm_kernels import gemm_kernel, pieces_kernel
from moss_tp.kernels.cuda.linear.tiles import Tile, choose_tile
from moss_tp.kernels.cuda.runtime.device import capability, check_aligned, provide_scratch
from moss_tp.kernels.cuda.runtime.jit import IS_INTERPRETER, options
from moss_tp.kernels.cuda.runtime.launches import count_launch
from moss_tp.kernels.cuda.runtime.switch import uses_triton

INTERPRETED_DEPTH = 64
BULK_ALIGNMENT = 8  # elements of 16 bits: 16 bytes


def multiply(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    plain: Tensor | None = None,
    gelu: Tensor | None = None,
) -> None:
    """`x (T, inputs) @ weight.T + bias (outputs,)`: the first outputs to `plain`, GELU of the
    others to `gelu`, both (T, some of the outputs), each row contiguous.

    Raises ValueError where they do not fit together, and where the kernel would run on a tensor
    that does not begin at a multiple of 16 bytes.
    """
    outs = [out for out in (plain, gelu) if out is not None]
    _check(x, weight, bias, *outs)
    if bias.shape != weight.shape[:1] or sum(out.shape[1] for out in outs) != len(bias):
        raise ValueError(f"outputs {[tuple(out.shape) for out in outs]} of {tuple(weight.shape)}")
    if any(len(out) != len(x) for out in outs):
        raise ValueError(f"{len(x)} rows to {[tuple(out.shape) for out in outs]}")
    if not len(x):
        return
    count_launch("gemm")
    if uses_triton(x):
        _launch_gemm(x, weight, bias, plain, gelu)
    else:
        reference.multiply(x, weight, bias, plain, gelu)


def multiply_pieces(x: Tensor, weight: Tensor, pieces: Tensor, cut: Cut) -> None:
    """`x (T, inputs) @ weight.T` over the leaves of `cut`, to `pieces (P, T, outputs)` fp32: one
    for each leaf, or for each two.

    Raises ValueError where they do not fit together, and where the kernel would run on a tensor
    that does not begin at a multiple of 16 bytes.
    """
    _check(x, weight)
    outputs, inputs = weight.shape
    if cut.inputs != inputs:
        raise ValueError(f"{cut} of {inputs} inputs")
    check_pieces(pieces, (len(x), outputs), cut)
    if not len(x):
        return
    count_launch("gemm_pieces")
    if uses_triton(x):
        _launch_pieces(x, weight, pieces, cut)
    else:
        reference.multiply_pieces(x, weight, pieces, cut)


def _launch_gemm(
    x: Tensor, weight: Tensor, bias: Tensor, plain: Tensor | None, gelu: Tensor | None
) -> None:
    (outputs, inputs), rows = weight.shape, len(x)
    num_plain = 0 if plain is None else plain.shape[1]
    tile = _tile(x, outputs)
    first = gelu if plain is None else plain
    second = plain if gelu is None else gelu
    assert first is not None and second is not None
    check_aligned(x, weight, bias, first, second)
    num_tiles = -(-num_plain // tile.outputs) + -(-(outputs - num_plain) // tile.outputs)
    gemm_kernel[(-(-rows // tile.rows), num_tiles)](
        weight, x, bias, first, second, rows, outputs, inputs, num_plain,
        x.stride(0), first.stride(0), second.stride(0),
        **constants(tile, inputs % tile.depth == 0), **options(tile.warps, tile.stages),
    )  # fmt: skip


def _launch_pieces(x: Tensor, weight: Tensor, pieces: Tensor, cut: Cut) -> None:
    check_aligned(x, weight, pieces)
    (outputs, inputs), rows = weight.shape, len(x)
    tile = _tile(x, outputs, len(pieces))
    if not cut.is_even(tile.depth):
        tile = tile.by_threads  # TMA would go on into another range
    grid = (-(-rows // tile.rows), -(-outputs // tile.outputs), len(pieces))
    pieces_kernel[grid](
        weight, x, pieces, rows, outputs, inputs, cut.first, cut.second, cut.start, x.stride(0),
        LEAVES=cut.leaves // len(pieces), **constants(tile, cut.is_even(tile.depth)),
        **options(tile.warps, tile.stages),
    )  # fmt: skip


def _tile(x: Tensor, outputs: int, pieces: int = 1) -> Tile:
    tile = choose_tile(len(x), outputs, pieces, x.dtype, capability(x))
    if x.shape[1] % BULK_ALIGNMENT or x.stride(0) % BULK_ALIGNMENT:
        tile = tile.by_threads
    if tile.is_bulk:
        provide_scratch()
    # A GPU adds up one instruction's K at a time, the interpreter a tile's. It multiplies in fp64,
    # since numpy's order of sums depends on the shapes.
    return tile if x.is_cuda else replace(tile, depth=INTERPRETED_DEPTH)


def constants(tile: Tile, is_even: bool) -> dict[str, int | bool]:
    """What both kernels are compiled for. `is_even`: a tile's depth divides K, or its ranges."""
    return {
        "BLOCK_OUT": tile.outputs,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_K": tile.depth,
        "IS_EVEN": is_even,
        "IS_BULK": tile.is_bulk,
        "IS_INTERPRETED": IS_INTERPRETER,
    }


def _check(x: Tensor, weight: Tensor, *others: Tensor) -> None:
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"x {tuple(x.shape)} for a weight {tuple(weight.shape)}")
    if not weight.is_contiguous():
        raise ValueError("the weight is not contiguous")
    for tensor in (x, weight, *others):
        if tensor.dtype != x.dtype or tensor.device != x.device or tensor.stride(-1) != 1:
            raise ValueError(f"{tensor.dtype} on {tensor.device}, strides {tensor.stride()}")
