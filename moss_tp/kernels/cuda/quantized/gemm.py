"""Products with a packed weight of 4 or 8 bits, whole or leaf by leaf. Kernels or reference."""

from torch import Tensor

from moss_tp.kernels.cuda.linear import reference
from moss_tp.kernels.cuda.linear.cut import check_pieces
from moss_tp.kernels.cuda.quantized.kernels import quantized_gemm_kernel, quantized_pieces_kernel
from moss_tp.kernels.cuda.quantized.pack import Form, PackedWeight, unpacked
from moss_tp.kernels.cuda.quantized.tiles import Tile, choose_tile
from moss_tp.kernels.cuda.runtime.device import capability, check_aligned
from moss_tp.kernels.cuda.runtime.jit import IS_INTERPRETER, options
from moss_tp.kernels.cuda.runtime.launches import count_launch
from moss_tp.kernels.cuda.runtime.switch import uses_triton


def multiply(
    x: Tensor,
    weight: PackedWeight,
    bias: Tensor,
    plain: Tensor | None = None,
    gelu: Tensor | None = None,
) -> None:
    """`linear.gemm.multiply` by a packed weight. x has the weight's inputs, in its order; where
    that is the model's own, results have the bits of the product with `dense()`."""
    outs = [out for out in (plain, gelu) if out is not None]
    _check(x, weight, bias, *outs)
    if bias.shape != (weight.outputs,) or sum(out.shape[1] for out in outs) != len(bias):
        raise ValueError(f"outputs {[tuple(out.shape) for out in outs]} of {weight.outputs}")
    if any(len(out) != len(x) for out in outs):
        raise ValueError(f"{len(x)} rows to {[tuple(out.shape) for out in outs]}")
    if not len(x):
        return
    count_launch("gemm")
    if uses_triton(x):
        _launch_gemm(x, weight, bias, plain, gelu)
    else:
        reference.multiply(x, unpacked(weight)[:, : weight.inputs], bias, plain, gelu)


def multiply_pieces(x: Tensor, weight: PackedWeight, pieces: Tensor) -> None:
    """`linear.gemm.multiply_pieces` by a packed weight, see `multiply`."""
    _check(x, weight)
    check_pieces(pieces, (len(x), weight.outputs), weight.cut)
    if not len(x):
        return
    count_launch("gemm_pieces")
    if uses_triton(x):
        _launch_pieces(x, weight, pieces)
    else:
        reference.multiply_pieces(x, unpacked(weight)[:, : weight.inputs], pieces, weight.cut)


def _launch_gemm(
    x: Tensor,
    weight: PackedWeight,
    bias: Tensor,
    plain: Tensor | None,
    gelu: Tensor | None,
) -> None:
    outputs, rows = weight.outputs, len(x)
    num_plain = 0 if plain is None else plain.shape[1]
    tile = _tile(x, weight)
    first = gelu if plain is None else plain
    second = plain if gelu is None else gelu
    assert first is not None and second is not None
    check_aligned(x, weight.words, weight.scales, bias, first, second)
    num_tiles = -(-num_plain // tile.outputs) + -(-(outputs - num_plain) // tile.outputs)
    quantized_gemm_kernel[(-(-rows // tile.rows), num_tiles)](
        weight.words, weight.scales, x, bias, first, second, rows, outputs, weight.inputs,
        num_plain, x.stride(0), first.stride(0), second.stride(0),
        **constants(tile, weight.form, weight.is_even), **options(tile.warps, tile.stages),
    )  # fmt: skip


def _launch_pieces(x: Tensor, weight: PackedWeight, pieces: Tensor) -> None:
    check_aligned(x, weight.words, weight.scales, pieces)
    outputs, rows, cut = weight.outputs, len(x), weight.cut
    tile = _tile(x, weight, len(pieces))
    grid = (-(-rows // tile.rows), -(-outputs // tile.outputs), len(pieces))
    quantized_pieces_kernel[grid](
        weight.words, weight.scales, x, pieces, rows, outputs, cut.first, cut.second, cut.start,
        x.stride(0), LEAVES=cut.leaves // len(pieces),
        **constants(tile, weight.form, weight.is_even), **options(tile.warps, tile.stages),
    )  # fmt: skip


def _tile(x: Tensor, weight: PackedWeight, pieces: int = 1) -> Tile:
    bits = weight.form.bits
    return choose_tile(len(x), weight.outputs, pieces, bits, x.dtype, capability(x))


def constants(tile: Tile, form: Form, is_even: bool) -> dict[str, int]:
    """What both kernels are compiled for. `is_even`: x has whole tiles of K."""
    return {
        "BITS": form.bits,
        "GROUP": form.group,
        "PLANE": form.plane,
        "BLOCK_OUT": tile.outputs,
        "BLOCK_ROWS": tile.rows,
        "IS_EVEN": is_even,
        "IS_INTERPRETED": IS_INTERPRETER,
    }


def _check(x: Tensor, weight: PackedWeight, *others: Tensor) -> None:
    if x.dim() != 2 or x.shape[1] != weight.inputs:
        raise ValueError(f"x {tuple(x.shape)} for {weight.inputs} inputs")
    if x.dtype != weight.dtype or weight.words.device != x.device:
        raise ValueError(f"{x.dtype} on {x.device} for {weight.dtype} on {weight.words.device}")
    for tensor in (x, *others):
        if tensor.dtype != x.dtype or tensor.device != x.device or tensor.stride(-1) != 1:
            raise ValueError(f"{tensor.dtype} on {tensor.device}, strides {tensor.stride()}")
