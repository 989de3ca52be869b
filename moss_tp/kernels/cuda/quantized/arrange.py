"""A product's input in the order of its weight. Kernel or reference."""

import torch
import triton.language as tl
from torch import Tensor

from moss_tp.kernels.cuda.runtime.jit import kernel, options
from moss_tp.kernels.cuda.runtime.launches import count_launch
from moss_tp.kernels.cuda.runtime.switch import uses_triton

BLOCK = 1024
NUM_WARPS = 4


@kernel("x_stride", unaligned=("x", "order", "out"))
def arrange_kernel(
    x: tl.tensor,  # (rows, inputs)
    order: tl.tensor,  # (size,) int32
    out: tl.tensor,  # (rows, size)
    x_stride: tl.tensor,
    size: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_column = column < size
    source = tl.load(order + column, is_column, -1)
    value = tl.load(x + row * x_stride + source, source >= 0, 0.0)
    tl.store(out + row * size + column, value, is_column)


def arrange(x: Tensor, order: Tensor, out: Tensor) -> None:
    """Columns `order (size,)` int32 of `x (T, inputs)`, zeros for -1, to `out (T, size)`.

    Raises ValueError where they do not fit together.
    """
    if out.shape != (len(x), len(order)) or out.dtype != x.dtype or not out.is_contiguous():
        raise ValueError(f"{tuple(x.shape)} by {len(order)} columns to {tuple(out.shape)}")
    if order.dtype != torch.int32 or not order.is_contiguous() or x.stride(-1) != 1:
        raise ValueError(f"order {order.dtype} of x with strides {x.stride()}")
    if not len(x):
        return
    count_launch("arrange")
    if uses_triton(x):
        grid = (len(x), -(-len(order) // BLOCK))
        arrange_kernel[grid](
            x, order, out, x.stride(0), len(order), BLOCK=BLOCK, **options(NUM_WARPS, 1)
        )
    else:
        out.copy_(x[:, order.clamp_min(0).long()] * (order >= 0))
