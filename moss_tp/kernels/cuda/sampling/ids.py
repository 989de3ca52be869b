"""Ids that only the device knows: those that the step before has sampled.

On the host such an id is `-(1 + r)`: the id sampled for row r of the step before.
"""

import torch
from torch import Tensor

from moss_tp.kernels.cuda.runtime.switch import uses_triton


def take_ids(token_ids: Tensor, sampled: Tensor, out: Tensor | None = None) -> Tensor:
    """`token_ids (T,)`, with the pending ones replaced by theirs of `sampled (R,)`, in `out`.

    Raises ValueError if a tensor has another shape or is not int32.
    """
    if out is None:
        out = torch.empty_like(token_ids)
    if out.shape != token_ids.shape or token_ids.dim() != 1 or sampled.dim() != 1:
        raise ValueError("token ids are no vector, or of another shape than the output")
    if {token_ids.dtype, sampled.dtype, out.dtype} != {torch.int32}:
        raise ValueError("ids are not int32")
    if uses_triton(token_ids):
        raise NotImplementedError
    out.copy_(resolve(token_ids, sampled))
    return out


def resolve(token_ids: Tensor, sampled: Tensor) -> Tensor:
    """The torch reference of `take_ids`."""
    pending = sampled[(-1 - token_ids).clamp(min=0).long()]
    return torch.where(token_ids < 0, pending, token_ids)
