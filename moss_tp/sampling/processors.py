"""Logits processors: penalties, `logit_bias` and blocked ids, in this order.

They handle all rows at once and touch only the entries that change: a pass over the vocabulary
would cost more than the rest. No operation mixes rows.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from moss_tp.sampling.row import SamplingRow

MIN_PENALTY = 1e-30  # fp32 is divided by it, and must stay finite


def process_logits(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    """Changes `logits (R, vocab_size)` in place."""
    _apply_penalties(logits, rows)
    biases = [(i, *pair) for i, row in enumerate(rows) for pair in logit_biases(row)]
    if biases:
        indices, ids, values = zip(*biases, strict=True)
        logits.put_(_entries(logits, indices, ids), logits.new_tensor(values), accumulate=True)
    blocked = [(i, token_id) for i, row in enumerate(rows) for token_id in row.blocked_ids]
    if blocked:
        entries = _entries(logits, *zip(*blocked, strict=True))
        logits.put_(entries, logits.new_full(entries.shape, -torch.inf))


def logit_biases(row: SamplingRow) -> Iterable[tuple[int, float]]:
    """`logit_bias`, and eos's bonus where the row is greedy: a random draw adds it itself, after
    top-k, top-p and min-p. Each id once, since nothing orders two additions to one logit."""
    biases = dict(row.params.logit_bias)
    if row.params.is_greedy and row.eos_id is not None and row.eos_bonus:
        biases[row.eos_id] = biases.get(row.eos_id, 0.0) + row.eos_bonus
    return biases.items()


def _apply_penalties(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    """Repetition penalty (Keskar et al. 2019), then OpenAI's presence and frequency penalties."""
    counted = [
        (i, row.params, counts) for i, row in enumerate(rows) if (counts := row.counts) is not None
    ]
    if not counted:
        return
    lens = [len(counts.ids) for _, _, counts in counted]

    def per_entry(values: list[float]) -> Tensor:
        return torch.from_numpy(np.repeat(np.array(values, np.float32), lens)).to(logits.device)

    indices = np.repeat([i for i, _, _ in counted], lens)
    entries = _entries(logits, indices, np.concatenate([counts.ids for _, _, counts in counted]))
    repetition = per_entry(
        [max(params.repetition_penalty, MIN_PENALTY) for _, params, _ in counted]
    )
    scores = logits.take(entries)
    scores = torch.where(scores < 0, scores * repetition, scores / repetition)
    if any(params.presence_penalty or params.frequency_penalty for _, params, _ in counted):
        frequency = per_entry([params.frequency_penalty for _, params, _ in counted])
        presence = per_entry([params.presence_penalty for _, params, _ in counted])
        in_output = np.concatenate([counts.num_output for _, _, counts in counted])
        num_output = torch.from_numpy(in_output).to(logits.device)
        scores -= frequency * num_output
        scores -= presence * (num_output > 0)
    logits.put_(entries, scores)


def _entries(logits: Tensor, indices: ArrayLike, ids: ArrayLike) -> Tensor:
    """The entries `(indices[i], ids[i])` of `logits`, by their place in the flattened tensor."""
    flat = np.asarray(indices) * logits.shape[1] + np.asarray(ids)
    return torch.from_numpy(flat).to(logits.device)
