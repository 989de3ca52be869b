"""Samples one token a row of logits. Runs on rank 0 only.

Logits are processed first (penalties, biases, blocked ids), then each row takes the argmax or a
random draw. No operation mixes rows, and a row's random number depends only on its seed and
position, so a reply does not depend on what it is batched with. The sampler is stateless, and
independent of sequences and stop conditions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from moss_tp.sampling.draw import draw, select_rows
from moss_tp.sampling.logprobs import Logprobs
from moss_tp.sampling.processors import process_logits
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.topk import argmax


class Sampler:
    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """One token for each row of fp32 `logits (R, vocab_size)`, which it changes in place."""
        logprobs = Logprobs(logits, rows)
        process_logits(logits, rows)
        return logprobs.attach(_sample_ids(logits, rows).tolist())


def _sample_ids(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Ids `(R,)`."""
    random = [i for i, row in enumerate(rows) if not row.params.is_greedy]
    if not random:
        return argmax(logits)
    if len(random) == len(rows):
        return draw(logits, rows)
    greedy = [i for i, row in enumerate(rows) if row.params.is_greedy]
    ids = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    ids[greedy] = argmax(select_rows(logits, greedy))
    ids[random] = draw(select_rows(logits, random), [rows[i] for i in random])
    return ids
