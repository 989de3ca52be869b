"""An all-reduce that sums as a tree of ranks, in fp32, and rounds once: over gloo as over NCCL.

gloo and NCCL choose where an element's sum begins by its place in the tensor and by the tensor's
size, so that its bits would depend on the number of rows. Here they do not:

    two ranks              the backend's own sum: a + b is b + a, and it rounds once
    up to ONE_SHOT_BYTES   every rank gets every part and sums all of it
    above                  rank r gets share r of every part, sums it, and gives the sum to all

Nothing waits for a GPU or depends on values, so that a sum can be recorded in a CUDA graph.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import (  # type: ignore[attr-defined]  # unstubbed
    AllgatherOptions,
)

from moss_tp.parallel.backends import Backend, on_current_stream, wait_for

ONE_SHOT_BYTES = 1 << 20
_ALIGNMENT = 256
Take = Callable[..., Tensor]  # a tensor of a shape and a dtype, not initialised


def scratch_bytes(size: int, num_elements: int, dtype: torch.dtype) -> int:
    """What a sum of up to `num_elements` over `size` ranks needs beside the tensor itself."""
    if size <= 2:
        return 0
    one_shot = min(num_elements, ONE_SHOT_BYTES // dtype.itemsize)
    share = -(-num_elements // size)
    wide = 0 if dtype == torch.float32 else torch.float32.itemsize
    return max(
        _padded(size * one_shot * dtype.itemsize) + _padded(size * one_shot * wide),
        2 * _padded(size * share * dtype.itemsize) + _padded(size * share * wide),
    )


class OrderedSum:
    """The sums over the `size` ranks of `backend`. Its counterparts make the same calls.

    With `reserve` it allocates nothing: one sum after the other uses the same scratch memory, on
    one stream. Otherwise each takes it from torch's allocator.
    """

    def __init__(self, backend: Backend, size: int) -> None:
        self.backend = backend
        self._size = size
        self._scratch: Tensor | None = None

    def reserve(self, num_elements: int, dtype: torch.dtype, device: torch.device) -> None:
        """Allocates for tensors of up to `num_elements`; larger ones raise RuntimeError then."""
        num_bytes = scratch_bytes(self._size, num_elements, dtype)
        self._scratch = torch.empty(num_bytes, dtype=torch.uint8, device=device)

    def __call__(self, x: Tensor) -> None:
        """Sums `x`, in fp32, bf16 or fp16, over the ranks, in place."""
        if x.numel() == 0:
            return
        flat = x.reshape(-1)  # a copy where `x` has gaps
        if self._size <= 2:
            wait_for(self.backend.allreduce([flat], on_current_stream(dist.AllreduceOptions())))
        elif flat.nbytes <= ONE_SHOT_BYTES:
            self.one_shot(flat)
        else:
            self.by_shares(flat)
        if flat.data_ptr() != x.data_ptr():
            x.copy_(flat.view_as(x))

    def one_shot(self, x: Tensor) -> None:
        """The sum of `x (n,)` as every rank takes it of all parts."""
        take = self._taker(x.device)
        parts = take((self._size, x.numel()), x.dtype)
        self._all_gather(parts, x)
        _sum_as_tree(parts, x, take)

    def by_shares(self, x: Tensor) -> None:
        """The sum of `x (n,)`, of which each rank takes a share."""
        take = self._taker(x.device)
        size, count = self._size, x.numel()
        share = -(-count // size)
        whole = x
        if share * size != count:
            whole = take((size * share,), x.dtype)
            whole[:count].copy_(x)
            whole[count:].zero_()
        parts = take((size, share), x.dtype)  # this rank's share, of each rank
        options = on_current_stream(dist.AllToAllOptions())
        wait_for(self.backend.alltoall_base(parts, whole.view(size, share), [], [], options))
        _sum_as_tree(parts, parts[0], take)
        self._all_gather(whole.view(size, share), parts[0])
        if whole is not x:
            x.copy_(whole[:count])

    def _all_gather(self, parts: Tensor, x: Tensor) -> None:
        options = on_current_stream(AllgatherOptions())
        wait_for(self.backend._allgather_base(parts, x[None], options))

    def _taker(self, device: torch.device) -> Take:
        """Hands out the scratch memory from its beginning."""
        scratch, end = self._scratch, 0

        def take(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            nonlocal end
            if scratch is None:
                return torch.empty(shape, dtype=dtype, device=device)
            start, num_bytes = end, torch.Size(shape).numel() * dtype.itemsize
            end += _padded(num_bytes)
            if end > scratch.nbytes:
                raise RuntimeError(f"a sum over ranks needs {end} bytes, {scratch.nbytes} are kept")
            return scratch[start : start + num_bytes].view(dtype).view(shape)

        return take


def _sum_as_tree(parts: Tensor, out: Tensor, take: Take) -> None:
    """`parts (ranks, n) -> out (n,)`, which may be the first of the parts: neighbours first, then
    their sums, an odd last one carried up. Overwrites `parts`."""
    size, step = len(parts), 1
    if size == 1:
        out.copy_(parts[0])
        return
    wide = parts
    if parts.dtype != torch.float32:
        wide = take(tuple(parts.shape), torch.float32).copy_(parts)
    while 2 * step < size:
        wide[: size - step : 2 * step].add_(wide[step :: 2 * step])
        step *= 2
    torch.add(wide[0], wide[step], out=out)  # in fp32; rounded as it is stored


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
