"""One id a row by inverting the distribution function: temperature, top-k, top-p, min-p, eos.

In transformers' order. A row goes one of two ways, by its own settings and logits alone: mostly
its best tokens are all that can come, and are looked at sorted; what is hardly cut goes over the
whole vocabulary, in the order of ids.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from moss_tp.sampling.inversion import invert, invert_whole, mass_of
from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling.top import sorted_values, top
from moss_tp.sampling.uniforms import uniforms

MIN_TEMPERATURE = 1e-30  # fp32 divides by it; a lower one is no greedier
# Of those that need memory of the vocabulary's size: fresh pages cost more than the arithmetic.
MAX_OPEN_ROWS = 8


class Way(NamedTuple):
    """How many of a row's best tokens to look at, and whether others may count as well."""

    num_best: int
    is_open: bool


SHORT, LONG, OPEN, WHOLE = Way(64, False), Way(256, False), Way(256, True), Way(0, True)


def draw(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Ids `(R,)` for the rows of `logits (R, vocab_size)`, whatever their temperature."""
    vocab_size = logits.shape[-1]
    ids = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    groups: dict[Way, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_way(row, vocab_size), []).append(index)
    whole = groups.pop(WHOLE, [])
    for way, group in groups.items():
        for members in _chunks(group, MAX_OPEN_ROWS if way.is_open else len(group)):
            chosen = [rows[i] for i in members]
            ids[members], is_enough = _draw_from_best(take(logits, members), chosen, way)
            whole += [i for i, enough in zip(members, is_enough, strict=True) if not enough]
    for members in _chunks(sorted(whole), MAX_OPEN_ROWS):
        ids[members] = _draw_from_all(take(logits, members), [rows[i] for i in members])
    return ids


def take(logits: Tensor, indices: Sequence[int]) -> Tensor:
    """Those rows, in ascending order; without a copy where they are all."""
    return logits if len(indices) == len(logits) else logits[list(indices)]


def _chunks(indices: Sequence[int], size: int) -> Iterable[list[int]]:
    return (list(indices[start : start + size]) for start in range(0, len(indices), size))


def _way(row: SamplingRow, vocab_size: int) -> Way:
    top_k = row.params.top_k or vocab_size
    for way in (SHORT, LONG):
        if top_k <= way.num_best:
            return way
    return OPEN if row.params.top_k == 0 and row.params.top_p < 1 else WHOLE


class _Part:
    """Rows that go the same way, with their settings as columns `(R, 1)`."""

    def __init__(self, logits: Tensor, rows: Sequence[SamplingRow], maximum: Tensor) -> None:
        self.logits = logits
        self.rows = rows
        self.column = partial(_column, rows, logits.device)
        self.max = maximum
        self.temperature = self.column(lambda row: max(row.params.temperature, MIN_TEMPERATURE))
        # Of the best token's share, as a logarithm.
        self.min_p = self.column(lambda row: _log(row.params.min_p))

    def scaled(self) -> Tensor:
        """fp32 log weights `(R, vocab_size)`, the best at 0."""
        # The greatest subtracted first, so that a tiny temperature cannot overflow.
        return (self.logits - self.max).div_(self.temperature.float())

    def uniforms(self) -> Tensor:
        numbers = uniforms([row.seed for row in self.rows], [row.position for row in self.rows])
        return torch.from_numpy(numbers).to(self.logits.device)[:, None]


def _draw_from_best(
    logits: Tensor, rows: Sequence[SamplingRow], way: Way
) -> tuple[Tensor, list[bool]]:
    """Ids drawn from the best tokens, and for which rows those were all that can come."""
    vocab_size = logits.shape[-1]
    values, ids = top(logits, way.num_best)
    part = _Part(logits, rows, values[:, :1])
    top_k = part.column(lambda row: row.params.top_k or vocab_size)
    rank = torch.arange(values.shape[1], device=values.device)
    scaled = ((values - part.max).double() / part.temperature).masked_fill(rank >= top_k, -math.inf)
    mass = scaled.exp()
    total = mass_of(part.scaled().exp_()) if way.is_open else mass.cumsum(dim=-1)[:, -1:]
    mass_before = mass.cumsum(dim=-1) - mass
    is_kept = (mass_before < part.column(lambda row: row.params.top_p) * total) & (
        scaled >= part.min_p
    )
    is_kept[:, 0] = True
    is_enough = ~is_kept[:, -1:] | (top_k <= values.shape[1])
    eos = part.column(lambda row: -1 if row.eos_id is None else row.eos_id)
    bonus = part.column(lambda row: row.eos_bonus)
    scaled = scaled.masked_fill(~is_kept, -math.inf) + bonus * (ids == eos)
    picks = invert((scaled - scaled.amax(dim=-1, keepdim=True)).exp(), part.uniforms())
    return ids.gather(1, picks)[:, 0], is_enough[:, 0].tolist()


def _draw_from_all(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    part = _Part(logits, rows, logits.amax(dim=-1, keepdim=True))
    scaled = part.scaled()
    floor = part.min_p.float()
    cut = [i for i, row in enumerate(rows) if row.params.top_p < 1 or row.params.top_k]
    if cut:
        floor[cut] = floor[cut].maximum(_cut(take(scaled, cut), [rows[i] for i in cut]))
    scaled.masked_fill_(scaled < floor, -math.inf)
    regulated = [i for i, row in enumerate(rows) if row.eos_bonus]
    if regulated:
        eos = [rows[i].eos_id for i in regulated]
        bonus = [rows[i].eos_bonus for i in regulated]
        scaled[regulated, eos] += scaled.new_tensor(bonus)
        scaled -= scaled.amax(dim=-1, keepdim=True)
    return invert_whole(scaled.exp_(), part.uniforms())


def _cut(scaled: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The lowest log weights `(R, 1)` that top-k and top-p keep, of `scaled (R, vocab_size)`."""
    values = sorted_values(scaled)
    column = partial(_column, rows, scaled.device)
    rank = torch.arange(values.shape[1], device=values.device)
    top_k = column(lambda row: row.params.top_k or values.shape[1])
    mass = values.exp().masked_fill_(rank >= top_k, 0)
    cumulative = mass.cumsum(dim=-1, dtype=torch.float64)
    is_kept = cumulative - mass < column(lambda row: row.params.top_p) * cumulative[:, -1:]
    num_kept = (is_kept & (rank < top_k)).sum(dim=-1, keepdim=True).clamp_(min=1)
    return values.gather(1, num_kept - 1)


def _column(
    rows: Sequence[SamplingRow], device: torch.device, value: Callable[[SamplingRow], float]
) -> Tensor:
    """A setting of each row, `(R, 1)` in fp64."""
    return torch.tensor([value(row) for row in rows], dtype=torch.float64, device=device)[:, None]


def _log(x: float) -> float:
    return math.log(x) if x else -math.inf
