"""What a wrapper asks of the device that a tensor is on."""

from functools import cache

import torch
from torch import Tensor

from moss_tp.kernels.cuda.runtime.jit import triton

INTERPRETED_CAPABILITY = 80
INTERPRETED_MULTIPROCESSORS = 132
ALIGNMENT = 16  # bytes


def check_aligned(*tensors: Tensor) -> None:
    """Raises ValueError if one begins elsewhere than at a multiple of 16 bytes: for it Triton would
    compile another program, whose sums may have another order."""
    for tensor in tensors:
        if tensor.data_ptr() % ALIGNMENT:
            raise ValueError(f"{tuple(tensor.shape)} begins at {tensor.data_ptr():#x}, unaligned")


def provide_scratch() -> None:
    """Lets the launches of this thread that follow ask for memory of their own, as TMA's
    descriptors do: some KiB for as long as a launch runs."""
    triton.set_allocator(_scratch)


def _scratch(size: int, alignment: int, stream: int | None) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device="cuda")


def capability(x: Tensor) -> int:
    """80 for sm_80; INTERPRETED_CAPABILITY for tensors on the CPU."""
    return _capability(x.get_device()) if x.is_cuda else INTERPRETED_CAPABILITY


@cache
def _capability(index: int) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


def multiprocessors(x: Tensor) -> int:
    """INTERPRETED_MULTIPROCESSORS for tensors on the CPU."""
    return _multiprocessors(x.get_device()) if x.is_cuda else INTERPRETED_MULTIPROCESSORS


@cache
def _multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count
