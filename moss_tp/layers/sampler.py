"""Turns logits into one token id a row. Runs on rank 0 only.

In transformers' order: repetition penalty, blocked ids, temperature, top-k, top-p, one draw.
Every operation is a row's own, and a row draws one number from its own generator, so a reply
does not depend on what it is batched with. It knows no sequence and no stop condition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.sampling_params import SamplingParams


@dataclass(frozen=True)
class SamplingRow:
    """How to sample one row. `prompt_and_output_ids` are penalised for repetition;
    `blocked_ids` (stop ids, as long as there are fewer than `min_tokens`) cannot be sampled.
    Without a `generator` a draw comes from torch's global one."""

    params: SamplingParams
    prompt_and_output_ids: Sequence[int]
    num_output: int
    generator: torch.Generator | None = None
    blocked_ids: Sequence[int] = ()


class Sampler:
    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
        """One id a row of `logits (R, vocab_size)`, which are changed in place."""
        for row_logits, row in zip(logits, rows, strict=True):
            _penalise(row_logits, row)
        token_ids = logits.argmax(dim=-1)
        for top_k, chosen in _by_top_k(rows).items():
            indices = torch.tensor(chosen, device=logits.device)
            sampled = _draw(logits[indices], top_k, [rows[i] for i in chosen])
            token_ids[indices] = sampled
        return token_ids.tolist()


def _penalise(logits: Tensor, row: SamplingRow) -> None:
    """Repetition penalty (Keskar et al. 2019) and blocked ids on one row `(vocab_size,)`."""
    penalty = row.params.repetition_penalty
    if penalty != 1 and row.prompt_and_output_ids:
        seen = torch.tensor(list(set(row.prompt_and_output_ids)), device=logits.device)
        scores = logits[seen]
        logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
    if row.blocked_ids:
        logits[torch.tensor(list(row.blocked_ids), device=logits.device)] = -torch.inf


def _by_top_k(rows: Sequence[SamplingRow]) -> dict[int, list[int]]:
    """Rows that draw, by their top_k: ties at the cut then fall alike in every batch."""
    groups: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        if not row.params.is_greedy:
            groups.setdefault(row.params.top_k, []).append(index)
    return groups


def _uniform(generator: torch.Generator | None) -> float:
    return torch.rand((), dtype=torch.float64, generator=generator).item()


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
    draws = column([_uniform(row.generator) for row in rows])
    picks = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
    picks = picks.minimum(is_kept.sum(dim=-1, keepdim=True) - 1)
    return ids.gather(1, picks)[:, 0]
