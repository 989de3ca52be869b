"""The CPU's kernels: all in Numba, a block as one program, whatever the dtype of the weights.

What differs by dtype and processor is the multiply-add of the products, see `linear.mul_add`:

    bf16          dot products of bf16 pairs (AVX-512 BF16), else fp32 FMAs on widened weights
    fp32, fp16    fp32 FMAs, on widened weights in fp16
"""

import torch

from moss_tp.kernels.base import Kernels
from moss_tp.kernels.cpu.attention.prefill import prefill_kernel
from moss_tp.kernels.cpu.chain import BlockFactory, PanelChain
from moss_tp.kernels.cpu.linear.panel import PanelLinear


def cpu_kernels(dtype: torch.dtype, head_dim: int) -> Kernels:
    """For fp32, and for bf16 with an even `head_dim`."""
    prefill_kernel(dtype == torch.bfloat16, head_dim)  # compiled now: no request waits for it
    return Kernels(torch.float32, PanelLinear, BlockFactory(), PanelChain.of)
