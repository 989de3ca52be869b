"""The kernels of this room as they are launched for MOSS, to compile ahead of time."""

from collections.abc import Iterator

import torch

from moss_tp.kernels.cuda.linear.cut import num_pieces
from moss_tp.kernels.cuda.linear.specs import LEAVES
from moss_tp.kernels.cuda.quantized import arrange, gemm
from moss_tp.kernels.cuda.quantized.arrange import arrange_kernel
from moss_tp.kernels.cuda.quantized.kernels import quantized_gemm_kernel, quantized_pieces_kernel
from moss_tp.kernels.cuda.quantized.pack import DTYPES, Form, plane_of
from moss_tp.kernels.cuda.quantized.tiles import Tile, choose_tile, row_buckets
from moss_tp.kernels.cuda.runtime.jit import pointer
from moss_tp.kernels.cuda.runtime.spec import KernelSpec

HIDDEN, INNER = 6144, 24576  # of the 16 B model
GROUP = 128
_GEMM_INTS = ("outputs", "inputs", "num_plain", "x_stride", "plain_stride", "gelu_stride")
_PIECES_INTS = ("outputs", "first", "second", "second_start", "x_stride")


def specs(dtype: torch.dtype, head_dim: int, cc: int) -> tuple[KernelSpec, ...]:
    """Each once, on one rank. `head_dim` makes no difference here; other dtypes have none."""
    found = {spec.name: spec for spec in _specs(dtype, cc)} if dtype in DTYPES else {}
    return tuple(found.values())


def _specs(dtype: torch.dtype, cc: int) -> Iterator[KernelSpec]:
    outputs = 3 * HIDDEN + INNER
    for bits in (4, 8):
        form = Form(bits, GROUP, plane_of(bits, GROUP))
        for rows in row_buckets(cc):
            yield _gemm(form, choose_tile(rows, outputs, 1, bits, dtype, cc), dtype)
            pieces = num_pieces(LEAVES, rows)
            tile = choose_tile(rows, HIDDEN, pieces, bits, dtype, cc)
            yield _pieces(form, tile, LEAVES // pieces, dtype)
    yield _arrange(dtype)


def _gemm(form: Form, tile: Tile, dtype: torch.dtype) -> KernelSpec:
    signature = _weight(dtype) | dict.fromkeys(("bias", "plain", "gelu"), pointer(dtype))
    signature |= {"rows": "i32"} | dict.fromkeys(_GEMM_INTS, "i32")
    constants = gemm.constants(tile, form, is_even=True)
    return _product(quantized_gemm_kernel, tile, signature, constants)


def _pieces(form: Form, tile: Tile, leaves: int, dtype: torch.dtype) -> KernelSpec:
    signature = _weight(dtype) | {"pieces": "*fp32", "rows": "i32"}
    signature |= dict.fromkeys(_PIECES_INTS, "i32")
    constants = {"LEAVES": leaves}
    constants |= gemm.constants(tile, form, is_even=True)
    return _product(quantized_pieces_kernel, tile, signature, constants)


def _weight(dtype: torch.dtype) -> dict[str, str]:
    return {"words": "*i16", "scales": "*i32", "x": pointer(dtype)}


def _product(
    function: object, tile: Tile, signature: dict[str, str], constants: dict[str, int]
) -> KernelSpec:
    size = f"{tile.outputs}x{tile.rows} in {tile.stages} stages"
    size += f" of {constants['LEAVES']}" if "LEAVES" in constants else ""
    return KernelSpec(
        name=f"{getattr(function, '__name__', function)} int{constants['BITS']} {size}",
        function=function,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constants=constants,
        aligned=tuple(name for name in signature if name != "rows"),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def _arrange(dtype: torch.dtype) -> KernelSpec:
    signature = {"x": pointer(dtype), "order": "*i32", "out": pointer(dtype)}
    signature |= {"x_stride": "i32", "size": "i32", "BLOCK": "constexpr"}
    return KernelSpec(
        name="arrange_kernel",
        function=arrange_kernel,
        signature=signature,
        constants={"BLOCK": arrange.BLOCK},
        aligned=("size",),
        num_warps=arrange.NUM_WARPS,
        num_stages=1,
    )
