"""Kernels by device and dtype. This is the one checked place through which layers reach them.

    cuda, fp16, odd shapes     torch's own operations; attention is `reference`
    cpu, fp32                  oneDNN on packed weights (torch's own, without oneDNN), attention in
                               Numba
    cpu, bf16, AMX             the same
    cpu, bf16                  all in Numba: a block is one program; products by AVX-512 BF16, or
                               without it in fp32 arithmetic over bf16 weights and cache

Every attention has the signature of `reference.attend`, which is its oracle in tests; every
linear equals `F.linear`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moss_tp.errors import ConfigError
from moss_tp.kernels.base import Attend, BlockKernel, BlockWeights, ChainKernel, MakeLinear
from moss_tp.kernels.reference import attention as reference
from moss_tp.kernels.reference.block import EagerBlock, PlainLinear

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Kernels:
    """What one rank computes with. `activations` is the dtype of what goes between blocks."""

    activations: torch.dtype
    linear: MakeLinear
    attend: Attend
    block: Callable[[BlockWeights], BlockKernel]
    # Of what `block` makes; None where a chain is no more than one block after the other.
    chain: Callable[[Sequence[Any]], ChainKernel] | None = None


def choose_kernels(device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernels:
    """Kernels for weights of `dtype`; compiles them where this machine never did.

    Raises ConfigError for a device without any.
    """
    if device.type not in DEVICES:
        raise ConfigError(f"there are no kernels for {device}")
    if device.type == "cuda" or not _numba_attends(dtype, head_dim):
        return _eager(dtype, PlainLinear, reference.attend)
    # Numba and the compiling of kernels take seconds: only for those who compute with them.
    from moss_tp.kernels.cpu import attention, onednn, prefill

    prefill.kernel_for(dtype == torch.bfloat16, head_dim)
    if onednn.has_fast(dtype):
        return _eager(dtype, onednn.OneDnnLinear, attention.attend)
    if dtype == torch.float32:
        return _eager(dtype, PlainLinear, attention.attend)
    from moss_tp.kernels.cpu import block

    return Kernels(
        torch.float32, block.PanelLinear, attention.attend, block.PanelBlock, block.PanelChain.of
    )


def _numba_attends(dtype: torch.dtype, head_dim: int) -> bool:
    """In bf16 two neighbours are read at once."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and head_dim % 2 == 0)


def _eager(dtype: torch.dtype, linear: MakeLinear, attend: Attend) -> Kernels:
    return Kernels(dtype, linear, attend, lambda weights: EagerBlock(weights, linear, attend))
