"""What changes logits before any draw: penalties, biases, ids that may not come.

All rows at once, and only the entries that change: a pass over the vocabulary would cost more
than the rest. Each entry depends on its own row alone.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from moss_tp.sampling.row import SamplingRow


def adjust(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    """Changes `logits (R, vocab_size)` in place: penalties, then `logit_bias`, then blocks."""
    _penalise(logits, rows)
    biases = [(i, *pair) for i, row in enumerate(rows) for pair in _biases(row)]
    if biases:
        where, ids, values = zip(*biases, strict=True)
        logits[_index(logits, where, ids)] += logits.new_tensor(values)
    blocked = [(i, token_id) for i, row in enumerate(rows) for token_id in row.blocked_ids]
    if blocked:
        logits[_index(logits, *zip(*blocked, strict=True))] = -torch.inf


def _biases(row: SamplingRow) -> Iterable[tuple[int, float]]:
    """The request's own and, where no draw comes, what regulation does to eos."""
    yield from row.params.logit_bias
    if row.params.is_greedy and row.eos_id is not None and row.eos_bonus:
        yield row.eos_id, row.eos_bonus


def _penalise(logits: Tensor, rows: Sequence[SamplingRow]) -> None:
    """Repetition penalty (Keskar et al. 2019), then OpenAI's presence and frequency penalties."""
    counted = [(i, row.params, row.counts) for i, row in enumerate(rows) if row.counts is not None]
    if not counted:
        return
    lens = [len(counts.ids) for _, _, counts in counted]

    def each(values: list[float]) -> Tensor:
        return torch.from_numpy(np.repeat(np.array(values, np.float32), lens)).to(logits.device)

    where = np.repeat([i for i, _, _ in counted], lens)
    at = _index(logits, where, np.concatenate([counts.ids for _, _, counts in counted]))
    repetition = each([params.repetition_penalty for _, params, _ in counted])
    scores = logits[at]
    scores = torch.where(scores < 0, scores * repetition, scores / repetition)
    if any(params.presence_penalty or params.frequency_penalty for _, params, _ in counted):
        said = np.concatenate([counts.num_output for _, _, counts in counted])
        num_output = torch.from_numpy(said).to(logits.device)
        scores -= each([params.frequency_penalty for _, params, _ in counted]) * num_output
        scores -= each([params.presence_penalty for _, params, _ in counted]) * (num_output > 0)
    logits[at] = scores


def _index(
    logits: Tensor, where: Sequence[int] | np.ndarray, ids: Sequence[int] | np.ndarray
) -> tuple[Tensor, Tensor]:
    """Rows and ids as an index into `logits`."""
    return (
        torch.as_tensor(where, dtype=torch.int64, device=logits.device),
        torch.as_tensor(ids, dtype=torch.int64, device=logits.device),
    )
