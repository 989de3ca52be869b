"""Random sampling with temperature, top-k, top-p and min-p, in transformers' order.

Most rows keep only their best few tokens: these are sorted and sampled from. A row that keeps more
samples from the whole vocabulary, in the order of ids. The choice between the two depends only on
the row's settings and logits, so batching does not change a reply.

What decides is computed in fp64: libraries differ in the last bits of an fp32 exp, and over 107,008
ids that would change one draw in a thousand, from processor to processor or on a GPU.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from moss_tp.sampling.inverse_cdf import invert, invert_vocab, total_weight
from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling.topk import sorted_values, topk
from moss_tp.sampling.uniforms import uniforms
from moss_tp.sampling_params import SamplingParams

MIN_TEMPERATURE = 1e-30  # fp32 is divided by it; lower ones would change nothing
# Rows at a time where memory of the vocabulary's size is needed for each: allocating fresh pages
# for more costs more than the arithmetic.
MAX_VOCAB_ROWS = 8
# Bounds the error of an fp32 total: about 2e-6 for log weights down to -30, 1e-6 for the sums.
TOTAL_ERROR = 5e-6


class Method(NamedTuple):
    """How a row is sampled: from its `num_best` best tokens, or from the whole vocabulary if 0.

    `has_tail` is set without top-k: then the best tokens are enough only if top-p and min-p keep
    no other, which is checked.
    """

    num_best: int
    has_tail: bool = False


BEST_64, BEST_256, BEST_OF_TOP_P, VOCAB = Method(64), Method(256), Method(256, True), Method(0)


def draw(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Sampled ids `(R,)` for `logits (R, vocab_size)`."""
    vocab_size = logits.shape[-1]
    groups: dict[Method, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(choose_method(row.params, vocab_size), []).append(i)
    if len(groups) == 1 and not (VOCAB in groups or BEST_OF_TOP_P in groups):
        return _draw_from_best(logits, rows, *groups)[0]
    ids = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    vocab_rows = groups.pop(VOCAB, [])
    for method, group in groups.items():
        for part in _split(group, MAX_VOCAB_ROWS if method.has_tail else len(group)):
            part_rows = [rows[i] for i in part]
            ids[part], keeps_more = _draw_from_best(select_rows(logits, part), part_rows, method)
            vocab_rows += [i for i, more in zip(part, keeps_more, strict=True) if more]
    for part in _split(sorted(vocab_rows), MAX_VOCAB_ROWS // 2):  # in fp64
        ids[part] = _draw_from_vocab(select_rows(logits, part), [rows[i] for i in part])
    return ids


def select_rows(logits: Tensor, indices: Sequence[int]) -> Tensor:
    """The rows at ascending `indices`; without a copy when that is all of them."""
    return logits if len(indices) == len(logits) else logits[list(indices)]


def _split(indices: list[int], size: int) -> Iterator[list[int]]:
    return (indices[start : start + size] for start in range(0, len(indices), size))


def choose_method(params: SamplingParams, vocab_size: int) -> Method:
    top_k = params.top_k or vocab_size
    for method in (BEST_64, BEST_256):
        if top_k <= method.num_best:
            return method
    return BEST_OF_TOP_P if params.top_k == 0 and params.top_p < 1 else VOCAB


class _Columns(NamedTuple):
    """The settings and the random number of each row, fp64 `(R, 1)` on the logits' device."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_log_weight: Tensor  # relative to the best token's
    eos_id: Tensor
    eos_bonus: Tensor
    uniform: Tensor

    @classmethod
    def make(cls, logits: Tensor, rows: Sequence[SamplingRow]) -> "_Columns":
        """All columns in one array, so in one copy to the device."""
        columns = np.empty((7, len(rows), 1))
        columns[:6, :, 0] = np.array([_settings(row, logits.shape[-1]) for row in rows]).T
        columns[6, :, 0] = uniforms([row.seed for row in rows], [row.position for row in rows])
        return cls(*torch.from_numpy(columns).to(logits.device).unbind())


def _settings(row: SamplingRow, vocab_size: int) -> tuple[float, ...]:
    params, bonus = row.params, row.eos_bonus
    return (
        max(params.temperature, MIN_TEMPERATURE),
        params.top_k or vocab_size,
        params.top_p,
        math.log(params.min_p) if params.min_p else -math.inf,
        row.eos_id if bonus and row.eos_id is not None else -1,
        bonus,
    )


def _draw_from_best(
    logits: Tensor, rows: Sequence[SamplingRow], method: Method
) -> tuple[Tensor, list[bool]]:
    """Sampled ids `(R,)`, and which rows keep more tokens than these: their ids are not valid."""
    values, ids = topk(logits, method.num_best)
    columns = _Columns.make(logits, rows)
    log_weights = (values - values[:, :1]).double() / columns.temperature  # (R, num_best)
    rank = torch.arange(values.shape[1], device=values.device)
    log_weights.masked_fill_(rank >= columns.top_k, -math.inf)
    weights = log_weights.exp()
    cumulative = weights.cumsum(dim=-1)
    before = cumulative - weights
    if method.has_tail:
        surplus = _surplus_of_all(logits, values[:, :1], columns, before)
    else:
        surplus = before - columns.top_p * cumulative[:, -1:]
    is_cut = surplus >= 0
    is_cut |= log_weights < columns.min_log_weight
    is_cut[:, 0] = False
    keeps_more = (~is_cut[:, -1]).tolist() if method.has_tail else [False] * len(rows)
    if any(row.eos_bonus for row in rows):
        log_weights += columns.eos_bonus * (ids == columns.eos_id)
        log_weights.masked_fill_(is_cut, -math.inf)
        weights = (log_weights - log_weights.amax(dim=-1, keepdim=True)).exp_()
    picks = invert(weights.masked_fill_(is_cut, 0), columns.uniform)
    return ids.gather(1, picks)[:, 0], keeps_more


def _surplus_of_all(logits: Tensor, maximum: Tensor, columns: _Columns, before: Tensor) -> Tensor:
    """What the weight `before (R, num_best)` each of the best exceeds top-p of the vocabulary's
    by: in fp64, where fp32 leaves a doubt about the sign."""
    weights = (logits - maximum).div_(columns.temperature.float()).exp_()
    total = total_weight(weights)
    surplus = before - columns.top_p * total
    in_doubt = surplus.abs().amin(dim=-1, keepdim=True) <= TOTAL_ERROR * total
    if in_doubt.any():
        for i in in_doubt[:, 0].nonzero()[:, 0].tolist():
            distance = (logits[i : i + 1] - maximum[i]).double()
            total = total_weight(distance.div_(columns.temperature[i]).exp_())
            surplus[i] = before[i] - columns.top_p[i] * total[0]
    return surplus


def _draw_from_vocab(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Sampled ids `(R,)`."""
    columns = _Columns.make(logits, rows)
    distance = logits - logits.amax(dim=-1, keepdim=True)  # so that nothing overflows
    log_weights = distance.double().div_(columns.temperature)
    if any(row.params.min_p for row in rows):
        log_weights.masked_fill_(log_weights < columns.min_log_weight, -math.inf)
    cut = [i for i, row in enumerate(rows) if row.params.top_p < 1 or row.params.top_k]
    if cut:
        lowest = distance.new_full((len(rows), 1), -math.inf)
        lowest[cut] = _lowest_kept(select_rows(distance, cut), _Columns(*(c[cut] for c in columns)))
        log_weights.masked_fill_(distance < lowest, -math.inf)
    regulated = [i for i, row in enumerate(rows) if row.eos_bonus]
    if regulated:
        eos = [rows[i].eos_id for i in regulated]
        bonus = [rows[i].eos_bonus for i in regulated]
        log_weights[regulated, eos] += log_weights.new_tensor(bonus)
        log_weights -= log_weights.amax(dim=-1, keepdim=True)
    return invert_vocab(log_weights.exp_(), columns.uniform)


def _lowest_kept(distance: Tensor, columns: _Columns) -> Tensor:
    """The lowest distance `(R, 1)` from the best logit that top-k and top-p keep of `(R,
    vocab_size)`."""
    values = sorted_values(distance)
    rank = torch.arange(values.shape[1], device=values.device)
    weights = (values.double() / columns.temperature).exp_().masked_fill_(rank >= columns.top_k, 0)
    cumulative = weights.cumsum(dim=-1)
    has_room = cumulative - weights < columns.top_p * cumulative[:, -1:]
    is_kept = (has_room | (columns.top_p >= 1)) & (rank < columns.top_k)
    num_kept = is_kept.sum(dim=-1, keepdim=True).clamp_(min=1)
    return values.gather(1, num_kept - 1)
