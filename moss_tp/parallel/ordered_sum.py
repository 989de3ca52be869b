"""An all-reduce over gloo that sums in rank order, in fp32, and rounds once, as `shm` does.

gloo's own cuts a tensor into one segment a rank and begins each segment's sum with another rank.
So an element's bits would depend on its place in the tensor, that is on the number of rows.

    rank r:  gets share r of every rank ── sums it in rank order ── gives the sum to all
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from moss_tp.parallel.backends import Backend


def ordered_all_reduce(backend: Backend, size: int, x: Tensor) -> None:
    """Sums `x`, in fp32, bf16 or fp16, over the `size` ranks of `backend`, in place."""
    share = -(-x.numel() // size)
    own = x.new_zeros(size, share)
    own.view(-1)[: x.numel()] = x.flatten()
    parts = torch.empty_like(own)  # (size, share): this rank's share, of each rank
    options: Any = dist.AllToAllOptions()
    backend.alltoall_base(parts, own, [], [], options).wait()
    total = parts[0].float()
    for part in parts[1:]:
        total += part.float()
    backend._allgather_base(own, total.to(x.dtype)[None]).wait()
    x.copy_(own.view(-1)[: x.numel()].view_as(x))
