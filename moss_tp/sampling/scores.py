"""Logprobs of given tokens, as a prompt's, and of the most probable ones beside them.

Logits are computed and used up in slices, so that the rows of a long prompt take no more memory
than a few. What is found is packed, so that a device hands it over in one copy. Nothing here looks
at values, and no operation mixes rows: their bits do not depend on the slices.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moss_tp.sampling.draw import MAX_VOCAB_ROWS
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling.topk import topk
from moss_tp.sampling_params import MAX_LOGPROBS

# Rows of the LM head's product at a time: fewer would read its weights once more.
MAX_HEAD_ROWS = 64

Ints = NDArray[np.int64]
Head = Callable[[Tensor], Tensor | None]


def packed_width(vocab_size: int) -> int:
    """int32 of a row: the token's logprob, logprobs of the best tokens, and their ids."""
    return 1 + 2 * min(MAX_LOGPROBS, vocab_size)


def score(head: Head, rows: Tensor, targets: Tensor, out: Tensor, max_head_rows: int) -> None:
    """Fills `out (N, packed_width)` with what follows `rows (N,)`, where `targets (N,)` do.

    `head(rows (R,)) -> logits (R, vocab_size)` on rank 0 and None elsewhere, where nothing is
    filled: it is called as often on each rank, for at most `max_head_rows` rows.
    """
    for part in _slices(len(rows), min(max_head_rows, MAX_HEAD_ROWS)):
        logits = head(rows[part])
        if logits is None:
            continue
        for few in _slices(len(logits), MAX_VOCAB_ROWS):  # in fp32
            _score(logits[few].float(), targets[part][few], out[part][few])


def decode(packed: Tensor, targets: Ints) -> list[SampledToken]:
    """`targets (N,)` with their logprobs, of a copy of `out` on the host."""
    num_best = packed.shape[1] // 2
    values, ids = packed[:, : 1 + num_best].view(torch.float32), packed[:, 1 + num_best :]
    each = zip(targets.tolist(), values.tolist(), ids.tolist(), strict=True)
    return [
        SampledToken(target, logprob, tuple(zip(best_ids, best, strict=True)))
        for target, (logprob, *best), best_ids in each
    ]


def _score(logits: Tensor, targets: Tensor, out: Tensor) -> None:
    logprobs = logits.log_softmax(dim=-1)
    best_ids = topk(logits, MAX_LOGPROBS)[1]  # logprobs are rounded: more are equal
    num_best = best_ids.shape[1]
    wanted = torch.cat((targets[:, None].long(), best_ids), dim=1)
    out[:, : 1 + num_best] = logprobs.gather(1, wanted).view(torch.int32)
    out[:, 1 + num_best :] = best_ids


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
