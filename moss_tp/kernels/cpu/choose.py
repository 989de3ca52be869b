"""Chooses the CPU's kernels by dtype and by what the processor can do.

fp32             oneDNN on weights that it packs (torch's own linears if it was built without
                 oneDNN), attention in Numba
bf16, AMX        the same
bf16             all in Numba, a block as one program: bf16 dot products with AVX-512 BF16,
                 else fp32 arithmetic on bf16 weights and cache
"""

import torch

from moss_tp.kernels.base import Kernels
from moss_tp.kernels.cpu.attention.attend import attend
from moss_tp.kernels.cpu.attention.kernel import kernel_of
from moss_tp.kernels.cpu.attention.operands import best_operands
from moss_tp.kernels.cpu.linear import onednn
from moss_tp.kernels.reference.block import eager_kernels
from moss_tp.kernels.reference.linear import PlainLinear


def cpu_kernels(dtype: torch.dtype, head_dim: int) -> Kernels:
    """For fp32, and for bf16 with an even `head_dim`."""
    kernel_of(
        best_operands(dtype == torch.bfloat16, head_dim)
    )  # compiled now: no request waits for it
    if onednn.is_fastest(dtype):
        return eager_kernels(dtype, onednn.OneDnnLinear, attend)
    if dtype == torch.float32:
        return eager_kernels(dtype, PlainLinear, attend)
    # Only here: importing them compiles kernels that the others do not use.
    from moss_tp.kernels.cpu.chain import BlockFactory, PanelChain
    from moss_tp.kernels.cpu.linear.panel import PanelLinear

    return Kernels(torch.float32, PanelLinear, BlockFactory(), PanelChain.of)
