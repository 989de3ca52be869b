"""What a wrapper asks of the device that a tensor is on."""

from functools import cache

import torch
from torch import Tensor

INTERPRETED_CAPABILITY = 80
ALIGNMENT = 16  # bytes


def check_aligned(*tensors: Tensor) -> None:
    """Raises ValueError if one begins elsewhere than at a multiple of 16 bytes: for it Triton would
    compile another program, whose sums may have another order."""
    for tensor in tensors:
        if tensor.data_ptr() % ALIGNMENT:
            raise ValueError(f"{tuple(tensor.shape)} begins at {tensor.data_ptr():#x}, unaligned")


def capability(x: Tensor) -> int:
    """80 for sm_80; INTERPRETED_CAPABILITY for tensors on the CPU."""
    return _capability(x.get_device()) if x.is_cuda else INTERPRETED_CAPABILITY


@cache
def _capability(index: int) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor
