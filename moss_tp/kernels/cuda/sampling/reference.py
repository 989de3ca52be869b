"""The torch reference of `sample`: dense and sorted, by definition rather than by shortcuts."""

from typing import NamedTuple

import torch
from torch import Tensor

from moss_tp.kernels.cuda.sampling.packing import block as b
from moss_tp.kernels.cuda.sampling.packing.block import Kind, SamplingInputs
from moss_tp.kernels.cuda.sampling.packing.outputs import SamplerOutputs
from moss_tp.kernels.cuda.sampling.reference_scores import append, process
from moss_tp.kernels.cuda.sampling.workspace import MAX_BEST, SamplerState
from moss_tp.sampling_params import MAX_LOGPROBS

_NOTHING = -torch.inf


def sample_reference(
    logits: Tensor, inputs: SamplingInputs, state: SamplerState, outputs: SamplerOutputs
) -> None:
    """See `sample.sample`."""
    rows = len(logits)
    append(inputs, state)
    scores = process(logits.to(torch.float32, copy=True), inputs, state.counts)
    ids = torch.zeros(rows, dtype=torch.int64, device=logits.device)
    kinds = inputs.ints[:rows, b.KIND]
    (greedy,) = torch.where(kinds == Kind.GREEDY)
    (random,) = torch.where(kinds > Kind.GREEDY)
    if len(greedy):
        ids[greedy] = _argmax(scores[greedy])
    if len(random):
        ids[random] = _draw(scores[random], _Settings.of(inputs, random))
    outputs.ids[:rows] = ids.int()
    _write_logprobs(logits.float(), ids, inputs, outputs)
    state.sampled[:rows] = outputs.ids[:rows]


def _argmax(scores: Tensor) -> Tensor:
    """The lowest id among equals."""
    ids = torch.arange(scores.shape[1], device=scores.device)
    is_best = scores == scores.amax(dim=-1, keepdim=True)
    return torch.where(is_best, ids, scores.shape[1] - 1).amin(dim=-1)


class _Settings(NamedTuple):
    """Of N rows, each `(N, 1)`."""

    kind: Tensor
    top_k: Tensor
    eos_id: Tensor
    temperature: Tensor
    top_p: Tensor
    min_log_weight: Tensor
    eos_bonus: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, inputs: SamplingInputs, rows: Tensor) -> "_Settings":
        ints, doubles, longs = inputs.ints[rows], inputs.doubles[rows], inputs.longs[rows]
        uniform = uniforms(longs[:, b.SEED], longs[:, b.POSITION])[:, None]
        return cls(
            kind=ints[:, [b.KIND]],
            top_k=ints[:, [b.TOP_K]],
            eos_id=ints[:, [b.EOS_ID]],
            temperature=doubles[:, [b.TEMPERATURE]],
            top_p=doubles[:, [b.TOP_P]],
            min_log_weight=doubles[:, [b.MIN_LOG_WEIGHT]],
            eos_bonus=doubles[:, [b.EOS_BONUS]],
            uniform=uniform,
        )


def _draw(scores: Tensor, settings: _Settings) -> Tensor:
    """Ids `(N,)` for `scores (N, V)`: among the kept ones, in the order of rank or of ids."""
    values, order = scores.sort(dim=-1, descending=True, stable=True)
    distance = values - values[:, :1]
    log_weights = distance.double() / settings.temperature
    is_cut, in_id_order = _cut(distance, log_weights, settings)
    log_weights = log_weights + settings.eos_bonus * (order == settings.eos_id)
    log_weights = log_weights.masked_fill(is_cut, _NOTHING)
    weights = (log_weights - log_weights.amax(dim=-1, keepdim=True)).exp()
    by_id = torch.zeros_like(weights).scatter_(1, order, weights)
    by_rank = _invert(weights, settings.uniform)
    picked = torch.where(in_id_order, _invert(by_id, settings.uniform), order.gather(1, by_rank))
    return picked[:, 0]


def _cut(distance: Tensor, log_weights: Tensor, settings: _Settings) -> tuple[Tensor, Tensor]:
    """Which ranks top-k, top-p and min-p remove, `(N, V)`; and whether a row keeps so many that it
    is drawn in the order of ids, `(N, 1)`. There equals of the last kept id are kept, too."""
    rank = torch.arange(distance.shape[1], device=distance.device)
    outside = rank >= settings.top_k
    weights = log_weights.exp().masked_fill_(outside, 0)
    cumulative = weights.cumsum(dim=-1)
    has_enough = cumulative - weights >= settings.top_p * cumulative[:, -1:]
    outside |= has_enough & (settings.top_p < 1)
    outside[:, 0] = False
    is_improbable = log_weights < settings.min_log_weight
    in_id_order = settings.kind >= Kind.VOCAB
    if distance.shape[1] >= MAX_BEST:
        keeps_last = ~(outside | is_improbable)[:, MAX_BEST - 1, None]
        in_id_order |= keeps_last & (settings.kind == Kind.TOP_P)
    num_kept = (~outside).sum(dim=-1, keepdim=True)
    lowest = distance.gather(1, num_kept - 1)
    outside = torch.where(in_id_order, distance < lowest, outside)
    return outside | is_improbable, in_id_order


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    cumulative = weights.cumsum(dim=-1)
    index = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return index.clamp_(max=weights.shape[1] - 1)


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """fp64 `(N,)` in [0, 1) of int64 seeds and positions: see `moss_tp.sampling.uniforms`."""
    golden = 0x9E3779B97F4A7C15 - 2**64
    return (_mix(_mix(seeds + golden) + positions * golden) >> 11 & 2**53 - 1).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64)):
        x = (x ^ (x >> shift & 2 ** (64 - shift) - 1)) * factor
    return x ^ (x >> 31 & 2**33 - 1)


def _write_logprobs(
    logits: Tensor, ids: Tensor, inputs: SamplingInputs, outputs: SamplerOutputs
) -> None:
    (rows,) = torch.where(inputs.ints[: len(ids), b.NUM_LOGPROBS] >= 0)
    if not len(rows):
        return
    logprobs = logits[rows].log_softmax(dim=-1)
    outputs.logprobs[rows] = logprobs.gather(1, ids[rows, None])[:, 0]
    order = logits[rows].sort(dim=-1, descending=True, stable=True).indices[:, :MAX_LOGPROBS]
    outputs.top_ids[rows, : order.shape[1]] = order.int()
    outputs.top_logprobs[rows, : order.shape[1]] = logprobs.gather(1, order)
