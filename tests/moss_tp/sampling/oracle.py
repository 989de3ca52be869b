"""The expected scores and probabilities of one row, from transformers' logits processors."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from moss_tp.sampling.row import SamplingRow
from moss_tp.sampling.token_history import TokenHistory
from moss_tp.sampling_params import SamplingParams

PLAIN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}


def make_row(
    params: SamplingParams,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    *,
    seed: int = 0,
    position: int = 0,
    blocked_ids: tuple[int, ...] = (),
    eos_id: int | None = None,
) -> SamplingRow:
    history = TokenHistory(prompt)
    for token_id in output:
        history.append(token_id)
    counted = history if params.has_penalties else None
    return SamplingRow(params, seed, position, counted, (), blocked_ids, eos_id)


def scores(
    logits: Tensor, params: SamplingParams, prompt: Sequence[int], output: Sequence[int]
) -> Tensor:
    """`logits (vocab_size,)` after penalties and biases."""
    ids = torch.tensor([[*prompt, *output]], dtype=torch.int64)
    result = logits[None].clone()
    if ids.numel():
        result = RepetitionPenaltyLogitsProcessor(float(params.repetition_penalty))(ids, result)
    for token_id, count in Counter(output).items():
        result[0, token_id] -= params.presence_penalty + count * params.frequency_penalty
    for token_id, bias in params.logit_bias:
        result[0, token_id] += bias
    return result[0]


def probabilities(adjusted: Tensor, params: SamplingParams, bonus: dict[int, float]) -> Tensor:
    """Probabilities `(vocab_size,)` from `scores`; `bonus` holds factors for some of them."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(params.temperature))])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        warpers.append(MinPLogitsWarper(params.min_p))
    no_ids = torch.LongTensor(1, 0)
    probs = warpers(no_ids, adjusted[None].double()).softmax(-1)[0]
    for token_id, factor in bonus.items():
        probs[token_id] *= factor
    return probs / probs.sum()
