"""Ids that only the device knows: those that the step before has sampled.

On the host such an id is `-(1 + r)`: the id sampled for row r of the step before.
"""

import torch
import triton.language as tl
from torch import Tensor

from moss_tp.kernels.cuda.runtime.jit import kernel, options
from moss_tp.kernels.cuda.runtime.launches import count_launch
from moss_tp.kernels.cuda.runtime.switch import uses_triton
from moss_tp.kernels.cuda.sampling.packing import block as b
from moss_tp.kernels.cuda.sampling.workspace import ONE_OUTPUT as _ONE_OUTPUT
from moss_tp.kernels.cuda.sampling.workspace import SEEN as _SEEN

BLOCK = 256
NUM_APPENDS = tl.constexpr(b.NUM_APPENDS)
SEEN, ONE_OUTPUT = tl.constexpr(_SEEN), tl.constexpr(_ONE_OUTPUT)


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
    count_launch("take_ids")
    if uses_triton(token_ids):
        size = len(token_ids)
        grid = (-(-size // BLOCK),)
        take_ids_kernel[grid](token_ids, sampled, out, size, BLOCK=BLOCK, **options(4, 1))
    else:
        out.copy_(resolve(token_ids, sampled))
    return out


def resolve(token_ids: Tensor, sampled: Tensor) -> Tensor:
    """The torch reference of `take_ids`."""
    pending = sampled[(-1 - token_ids).clamp(min=0).long()]
    return torch.where(token_ids < 0, pending, token_ids)


@kernel("size")
def take_ids_kernel(
    token_ids: tl.tensor, sampled: tl.tensor, out: tl.tensor, size: tl.tensor, BLOCK: tl.constexpr
) -> None:
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_place = place < size
    ids = tl.load(token_ids + place, mask=is_place, other=0)
    pending = tl.load(sampled - 1 - ids, mask=is_place & (ids < 0), other=0)
    tl.store(out + place, tl.where(ids < 0, pending, ids), mask=is_place)


@kernel("max_appends")
def append_kernel(
    header: tl.tensor,
    appends: tl.tensor,  # (2, max_appends): slots, then ids
    sampled: tl.tensor,
    counts: tl.tensor,  # (slots, vocab_size)
    max_appends: tl.tensor,
    vocab_size: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Counts the step's appends, of which one id may come several times."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_place = place < tl.load(header + NUM_APPENDS)
    slots = tl.load(appends + place, mask=is_place, other=0)
    ids = tl.load(appends + max_appends + place, mask=is_place, other=0)
    pending = tl.load(sampled - 1 - ids, mask=is_place & (ids < 0), other=0)
    ids = tl.where(ids < 0, pending, ids)
    count = counts + slots.to(tl.int64) * vocab_size + ids
    tl.atomic_or(count, SEEN, mask=is_place)
    tl.atomic_add(count, ONE_OUTPUT, mask=is_place)
