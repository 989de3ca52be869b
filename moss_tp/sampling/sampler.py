"""Turns logits into one token a row. Runs on rank 0 only.

First what changes logits (`adjust`), then the best id or a draw. Every operation is a row's own,
and a row's random number depends on its seed and position only, so a reply does not depend on
what it is batched with. It knows no sequence, holds no state and decides no stop.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from moss_tp.sampling.adjust import adjust
from moss_tp.sampling.draw import draw, take
from moss_tp.sampling.logprobs import Logprobs
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.top import argmax


class Sampler:
    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """One token a row of fp32 `logits (R, vocab_size)`, which are changed in place."""
        logprobs = Logprobs(logits, rows)
        adjust(logits, rows)
        return logprobs.attach(_choose(logits, rows).tolist())


def _choose(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Ids `(R,)`."""
    greedy = [i for i, row in enumerate(rows) if row.params.is_greedy]
    if len(greedy) == len(rows):
        return argmax(logits)
    ids = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    drawn = [i for i, row in enumerate(rows) if not row.params.is_greedy]
    if greedy:
        ids[greedy] = argmax(take(logits, greedy))
    if drawn:
        ids[drawn] = draw(take(logits, drawn), [rows[i] for i in drawn])
    return ids
