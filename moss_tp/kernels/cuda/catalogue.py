"""Every kernel of the back end, as a model's dtype and head size and a GPU's capability need it."""

from collections.abc import Iterator

import torch

from moss_tp.kernels.cuda.attention import specs as attention
from moss_tp.kernels.cuda.linear import specs as linear
from moss_tp.kernels.cuda.quantized import specs as quantized
from moss_tp.kernels.cuda.runtime import read, spin
from moss_tp.kernels.cuda.runtime.spec import KernelSpec
from moss_tp.kernels.cuda.sampling import specs as sampling

NAME = f"{__name__}:specs"


def specs(dtype: str, head_dim: int, cc: int) -> Iterator[KernelSpec]:
    """See `runtime.cubins.Catalogue`."""
    chosen: torch.dtype = getattr(torch, dtype)
    yield from linear.specs(chosen, head_dim, cc)
    yield from quantized.specs(chosen, head_dim, cc)
    yield from attention.specs(chosen, head_dim, cc)
    yield from sampling.specs(chosen, head_dim, cc)
    yield from read.specs()
    yield from spin.specs()
