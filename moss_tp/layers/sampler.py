"""Turns logits into one token a row. Runs on rank 0 only.

In transformers' order: repetition penalty, blocked ids, temperature, top-k, top-p, one draw.
Every operation is a row's own, and a row's random number depends on its seed and position only,
so a reply does not depend on what it is batched with. It knows no sequence and no stop condition.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moss_tp.layers.sampling.row import SampledToken, SamplingRow
from moss_tp.layers.sampling.uniforms import uniforms


class Sampler:
    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """One token a row of `logits (R, vocab_size)`, which are changed in place."""
        _penalise(logits, rows)
        token_ids = logits.argmax(dim=-1)
        for top_k, chosen in _by_top_k(rows).items():
            indices = torch.tensor(chosen, device=logits.device)
            sampled = _draw(logits[indices], top_k, [rows[i] for i in chosen])
            token_ids[indices] = sampled
        return [SampledToken(token_id) for token_id in token_ids.tolist()]


def _penalise(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    """Repetition penalty (Keskar et al. 2019) and blocked ids."""
    counts = [(i, row.counts, row) for i, row in enumerate(rows) if row.counts is not None]
    if counts:
        lens = [len(count.ids) for _, count, _ in counts]
        ids = torch.from_numpy(np.concatenate([count.ids for _, count, _ in counts]))
        where = torch.from_numpy(np.repeat([i for i, _, _ in counts], lens))
        penalties = [row.params.repetition_penalty for _, _, row in counts]
        penalty = torch.from_numpy(np.repeat(np.array(penalties, np.float32), lens))
        at = (where.to(logits.device), ids.to(logits.device))
        scores, penalty = logits[at], penalty.to(logits.device)
        logits[at] = torch.where(scores < 0, scores * penalty, scores / penalty)
    for row_logits, row in zip(logits, rows, strict=True):
        if row.blocked_ids:
            row_logits[torch.tensor(row.blocked_ids, device=logits.device)] = -torch.inf


def _by_top_k(rows: Sequence[SamplingRow]) -> dict[int, list[int]]:
    """Rows that draw, by their top_k: ties at the cut then fall alike in every batch."""
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        if not row.params.is_greedy:
            groups.setdefault(row.params.top_k, []).append(index)
    return groups


def _draw(logits: Tensor, top_k: int, rows: Sequence[SamplingRow]) -> Tensor:
    """Ids `(R,)` drawn from `logits (R, vocab_size)`, by inverting the distribution function."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    if 0 < top_k < logits.shape[-1]:
        top, ids = logits.topk(top_k, dim=-1)
    else:
        top, ids = logits.sort(dim=-1, descending=True, stable=True)
    # The greatest subtracted first, so that a tiny temperature cannot overflow.
    scaled = (top - top[:, :1]).double() / column([row.params.temperature for row in rows])
    probs = scaled.softmax(dim=-1)
    mass_before = probs.cumsum(dim=-1) - probs
    is_kept = mass_before < column([row.params.top_p for row in rows])
    is_kept[:, 0] = True
    cumulative = (probs * is_kept).cumsum(dim=-1)
    numbers = uniforms([row.seed for row in rows], [row.position for row in rows])
    draws = torch.from_numpy(numbers).to(logits.device)[:, None]
    picks = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
    picks = picks.minimum(is_kept.sum(dim=-1, keepdim=True) - 1)
    return ids.gather(1, picks)[:, 0]
