"""The CUDA kernels of a model: Triton on a GPU, their torch references on the CPU."""

import torch
from torch import Tensor

from moss_tp.errors import ConfigError
from moss_tp.kernels.base import BlockWeights, Kernels, Weight
from moss_tp.kernels.cuda.attention.cache import PagedFormat
from moss_tp.kernels.cuda.block import CudaBlock, CudaChain
from moss_tp.kernels.cuda.head import CudaLinear, CudaNorm
from moss_tp.kernels.cuda.linear.tiles import row_buckets
from moss_tp.kernels.cuda.quantized import tiles as quantized
from moss_tp.kernels.cuda.workspace import Workspace

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OLDEST = (8, 0)


def cuda_kernels(dtype: torch.dtype, head_dim: int) -> Kernels:
    """Raises ConfigError for a dtype or head size without kernels, and for a GPU that is too old.

    All of a model's kernels write into one workspace.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"the CUDA kernels have no {dtype}")
    if head_dim % 16 or not 16 <= head_dim <= 256:
        raise ConfigError(f"the CUDA kernels need a head size that 16 divides, not {head_dim}")
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < OLDEST:
        raise ConfigError(f"the CUDA kernels need sm_80: {torch.cuda.get_device_name()}")
    workspace = Workspace(dtype)

    def linear(weight: Weight, has_gelu: bool) -> CudaLinear:
        return CudaLinear(weight, has_gelu, workspace)

    def block(weights: BlockWeights) -> CudaBlock:
        return CudaBlock.pack(weights, workspace)

    def norm(weight: Tensor, bias: Tensor, eps: float) -> CudaNorm:
        return CudaNorm(weight, bias, eps, workspace)

    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else OLDEST
    capability = 10 * major + minor
    buckets = sorted({*row_buckets(dtype, capability), *quantized.row_buckets(capability)})
    return Kernels(dtype, linear, block, CudaChain, PagedFormat(), norm, workspace, tuple(buckets))
