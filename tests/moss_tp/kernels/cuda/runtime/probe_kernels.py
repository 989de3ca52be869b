"""A catalogue for tests of the compiler: kernels that fit, that spill, that take too much shared
memory, and one that is wrong. It is imported where Triton compiles."""

from collections.abc import Iterator

import triton
import triton.language as tl

from moss_tp.kernels.cuda.runtime.spec import KernelSpec

SIZES = {"x": "*fp32", "y": "*fp32", "N": "constexpr"}


@triton.jit
def _copy(x: tl.tensor, y: tl.tensor, N: tl.constexpr) -> None:
    i = tl.arange(0, N)
    tl.store(y + i, tl.load(x + i))


@triton.jit
def _product(x: tl.tensor, y: tl.tensor, N: tl.constexpr) -> None:
    i = tl.arange(0, N)
    square = i[:, None] * N + i[None, :]
    a = tl.load(x + square)
    tl.store(y + square, tl.dot(a, tl.trans(a)))


@triton.jit
def _wrong(x: tl.tensor, y: tl.tensor, N: tl.constexpr) -> None:
    tl.store(y + tl.arange(0, N), tl.load(x + tl.arange(0, 2 * N)))


def fits(dtype: str, head_dim: int, cc: int) -> Iterator[KernelSpec]:
    yield KernelSpec("copy", _copy, SIZES, {"N": 256}, ("x", "y"))
    yield KernelSpec("small product", _product, SIZES, {"N": 32}, ("x", "y"))


def spills(dtype: str, head_dim: int, cc: int) -> Iterator[KernelSpec]:
    yield KernelSpec("one warp, 16384 numbers", _copy, SIZES, {"N": 16384}, ("x", "y"), 1)
    options = {"maxnreg": 32, "enable_fp_fusion": False}
    yield KernelSpec("few registers", _product, SIZES, {"N": 64}, ("x", "y"), 1, 1, options)


def too_large(dtype: str, head_dim: int, cc: int) -> Iterator[KernelSpec]:
    halves = {"x": "*fp16", "y": "*fp32", "N": "constexpr"}
    yield KernelSpec("large product", _product, halves, {"N": 256}, ("x", "y"), 16)


def wrong(dtype: str, head_dim: int, cc: int) -> Iterator[KernelSpec]:
    yield KernelSpec("copy", _copy, SIZES, {"N": 32})
    yield KernelSpec("wrong", _wrong, SIZES, {"N": 32})
