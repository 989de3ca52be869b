"""The kernels of this room as they are launched for MOSS, to compile ahead of time."""

from collections.abc import Iterator

import torch

from moss_tp.kernels.cuda.linear import gemm, norm
from moss_tp.kernels.cuda.linear.cut import Cut, num_pieces
from moss_tp.kernels.cuda.linear.gemm_kernels import gemm_kernel, pieces_kernel
from moss_tp.kernels.cuda.linear.norm_kernel import FLAGS, norm_kernel, tree_kernel
from moss_tp.kernels.cuda.linear.tiles import Tile, choose_tile, row_buckets
from moss_tp.kernels.cuda.runtime.jit import pointer
from moss_tp.kernels.cuda.runtime.spec import KernelSpec

# (hidden, inner, vocabulary) of the 16 B model, and of one for tests.
SHAPES = ((6144, 24576, 107008), (1024, 4096, 1024))
LEAVES = 8
_GEMM_INTS = ("outputs", "inputs", "num_plain", "x_stride", "plain_stride", "gelu_stride")
_PIECES_INTS = ("outputs", "inputs", "first", "second", "second_start", "x_stride")


def specs(dtype: torch.dtype, head_dim: int, cc: int) -> tuple[KernelSpec, ...]:
    """Each once, on one rank. `head_dim` makes no difference here."""
    found = {spec.name: spec for shape in SHAPES for spec in _specs(shape, dtype, cc)}
    return tuple(found.values())


def _specs(shape: tuple[int, int, int], dtype: torch.dtype, cc: int) -> Iterator[KernelSpec]:
    hidden, inner, vocab = shape
    cut = Cut(LEAVES, hidden // LEAVES, inner // LEAVES)
    for rows in row_buckets(dtype, cc):
        for outputs in (3 * hidden + inner, vocab):
            yield _gemm(choose_tile(rows, outputs, 1, dtype, cc), dtype)
        yield _pieces(cut, rows, hidden, dtype, cc)
    yield _norm(hidden, dtype)
    yield _tree()


def _gemm(tile: Tile, dtype: torch.dtype) -> KernelSpec:
    signature = dict.fromkeys(("weight", "x", "bias", "plain", "gelu"), pointer(dtype))
    signature |= {"rows": "i32"} | dict.fromkeys(_GEMM_INTS, "i32")
    return _product(gemm_kernel, tile, signature, gemm.constants(tile, is_even=True))


def _pieces(cut: Cut, rows: int, outputs: int, dtype: torch.dtype, cc: int) -> KernelSpec:
    count = num_pieces(cut.leaves, rows)
    tile = choose_tile(rows, outputs, count, dtype, cc)
    signature = dict.fromkeys(("weight", "x"), pointer(dtype)) | {"pieces": "*fp32"}
    signature |= {"rows": "i32"} | dict.fromkeys(_PIECES_INTS, "i32")
    constants = {"LEAVES": cut.leaves // count} | gemm.constants(
        tile, is_even=cut.is_even(tile.depth)
    )
    return _product(pieces_kernel, tile, signature, constants)


def _product(
    function: object, tile: Tile, signature: dict[str, str], constants: dict[str, int]
) -> KernelSpec:
    size = f"{tile.outputs}x{tile.rows}x{tile.depth} in {tile.stages} stages"
    size += " by TMA" if tile.is_bulk else ""
    piece = f" of {constants['LEAVES']}" if "LEAVES" in constants else ""
    return KernelSpec(
        name=f"{getattr(function, '__name__', function)} {size}{piece}",
        function=function,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constants=constants,
        aligned=tuple(name for name in signature if name != "rows"),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def _norm(hidden: int, dtype: torch.dtype) -> KernelSpec:
    constants = norm.constants(hidden)
    signature = {"pieces": "*fp32"} | dict.fromkeys(("bias", "residual"), pointer(dtype))
    signature |= {"index": "*i32"}
    signature |= dict.fromkeys(("x", "weight", "shift", "normed"), pointer(dtype))
    aligned = tuple(name for name in signature if name != "index")
    signature |= dict.fromkeys(("rows", "num_pieces", "hidden"), "i32") | {"eps": "fp32"}
    signature |= dict.fromkeys(FLAGS, "i32") | dict.fromkeys(constants, "constexpr")
    return KernelSpec(
        name=f"norm_kernel {constants['BLOCK']}",
        function=norm_kernel,
        signature=signature,
        constants=constants,
        aligned=(*aligned, "hidden"),
        num_warps=norm.NUM_WARPS,
        num_stages=1,
    )


def _tree() -> KernelSpec:
    return KernelSpec(
        name="tree_kernel",
        function=tree_kernel,
        signature={"pieces": "*fp32", "size": "i32", "num_pieces": "i32", "BLOCK": "constexpr"},
        constants={"BLOCK": norm.TREE_BLOCK},
        aligned=("pieces",),
        num_warps=norm.TREE_WARPS,
        num_stages=1,
    )
