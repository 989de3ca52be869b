"""Reads memory as fast as the device can: the rate that bounds a decode step.

A copy also writes, and torch's reductions do not reach the full rate.
"""

from collections.abc import Iterator

import torch
import triton.language as tl
from torch import Tensor

from moss_tp.kernels.cuda.runtime.jit import kernel, options
from moss_tp.kernels.cuda.runtime.spec import KernelSpec
from moss_tp.kernels.cuda.runtime.switch import uses_triton


@kernel("n")
def _read_kernel(
    x: tl.tensor, sums: tl.tensor, n: tl.tensor, BLOCK: tl.constexpr, LOOPS: tl.constexpr
) -> None:
    start = tl.program_id(0).to(tl.int64) * (BLOCK * LOOPS)
    total = tl.zeros((BLOCK,), tl.int32)
    for i in tl.static_range(LOOPS):
        places = start + i * BLOCK + tl.arange(0, BLOCK)
        total += tl.load(x + places, mask=places < n, other=0)
    tl.store(sums + tl.program_id(0), tl.sum(total, 0))


def read_sums(x: Tensor, block: int = 8192, loops: int = 1) -> Tensor:
    """Sums of pieces of `block * loops` elements of `x (N,)` int32, modulo 2^32: reads x once,
    writes next to nothing.

    Raises ValueError for another dtype or shape, and for a block that is no power of 2.
    """
    if x.dtype != torch.int32 or x.dim() != 1 or not x.is_contiguous():
        raise ValueError("x must be contiguous int32 of one dimension")
    if block < 1 or block & (block - 1) or loops < 1:
        raise ValueError(f"block {block} must be a power of 2, loops {loops} positive")
    size = block * loops
    num_pieces = -(-len(x) // size)
    if not uses_triton(x):
        padded = torch.nn.functional.pad(x, (0, num_pieces * size - len(x)))
        return padded.view(num_pieces, size).sum(1, dtype=torch.int32)
    sums = torch.empty(num_pieces, dtype=torch.int32, device=x.device)
    _read_kernel[(num_pieces,)](x, sums, len(x), BLOCK=block, LOOPS=loops, **options(8, 1))
    return sums


def specs() -> Iterator[KernelSpec]:
    """The kernel as it is compiled."""
    yield KernelSpec(
        "read_sums",
        _read_kernel,
        {"x": "*i32", "sums": "*i32", "n": "i32", "BLOCK": "constexpr", "LOOPS": "constexpr"},
        {"BLOCK": 8192, "LOOPS": 1},
        aligned=("x", "sums"),
        num_warps=8,
        num_stages=1,
    )
