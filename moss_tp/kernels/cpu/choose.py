"""The CPU's kernels: all in Numba, a block as one program, whatever the dtype of the weights.

What differs by dtype and processor is the multiply-add of the products, see `microkernel.mul_add`:

    bf16          tiles of bf16 pairs (AMX), dot products of them (AVX-512 BF16), else fp32 FMAs
                  on widened weights
    fp32, fp16    fp32 FMAs, on widened weights in fp16
    4 and 8 bits  any of these but widened weights, on levels that are unpacked in registers or,
                  for AMX and many rows, in the cache; see `linear.levels`
"""

import torch

from moss_tp.kernels.base import Kernels
from moss_tp.kernels.cpu.attention.kernel import kernel_of
from moss_tp.kernels.cpu.attention.operands import best_operands
from moss_tp.kernels.cpu.chain import BlockFactory, chain_of
from moss_tp.kernels.cpu.linear.panel import PanelLinear
from moss_tp.kernels.cpu.storage import PanelStorage


def cpu_kernels(dtype: torch.dtype, head_dim: int) -> Kernels:
    """For fp32, bf16 and fp16."""
    # Compiled now: no request waits for it.
    kernel_of(best_operands(dtype == torch.bfloat16, head_dim))
    blocks = BlockFactory()
    storage = PanelStorage(blocks)
    return Kernels(torch.float32, PanelLinear, blocks, chain_of, storage=storage)
