"""Memory of the host as the system maps it: zeros that take none until they are written, files that
take none until they are read, and huge pages, where the system has them, for weights that a step
reads from end to end.

A kernel that prefetches well waits for address translation in small pages, since each holds few
microseconds of its work.
"""

import math
import mmap
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

_MIN_BYTES = 4 << 20  # two pages, so that one of them is whole


def lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """As `torch.zeros`, which writes them all; these take memory page by page as they are written,
    on the host."""
    if device.type != "cpu" or not math.prod(shape):
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(_mapped(math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


def huge_zeros(*shape: int, dtype: torch.dtype) -> Tensor:
    """As `torch.zeros`, on the host. Small tensors are in memory of the usual kind."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < _MIN_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype)
    memory = _mapped(num_bytes)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def map_file(file: Path, start: int, stop: int) -> Tensor:
    """The file's bytes from `start` to `stop`, uint8."""
    if start == stop:
        return torch.empty(0, dtype=torch.uint8)
    offset = start % mmap.ALLOCATIONGRANULARITY
    first = start - offset
    with file.open("rb") as opened:
        # A private, writable mapping: torch warns of others. Nothing writes to it.
        memory = mmap.mmap(opened.fileno(), stop - first, offset=first, access=mmap.ACCESS_COPY)
    return torch.frombuffer(memory, dtype=torch.uint8, offset=offset)


def _mapped(num_bytes: int) -> mmap.mmap:
    """Lives as long as a tensor over it."""
    return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def huge_cat(tensors: list[Tensor]) -> Tensor:
    """As `torch.cat` along the first dimension."""
    length, first = sum(len(tensor) for tensor in tensors), tensors[0]
    return torch.cat(tensors, out=huge_zeros(length, *first.shape[1:], dtype=first.dtype))
