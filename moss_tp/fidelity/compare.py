"""Models beside a reference, on the same sequences of token ids."""

from collections.abc import Callable, Mapping, Sequence

import torch

from moss_tp.errors import ConfigError
from moss_tp.fidelity.fidelity import Fidelity, FidelitySums
from moss_tp.fidelity.scored_model import ScoredModel

Ids = Sequence[int]
REFERENCE = "reference"


def compare_models(
    reference: ScoredModel,
    others: Mapping[str, ScoredModel],
    sequences: Sequence[Ids],
    advance: Callable[[int], object],
) -> dict[str, Fidelity]:
    """By name; the reference's own is under REFERENCE. `advance` is told how many tokens are done.

    Raises ConfigError for a model with another vocabulary than the reference's.
    """
    vocab_size = reference.config.vocab_size
    for name, model in others.items():
        if model.config.vocab_size != vocab_size:
            raise ConfigError(f"{name} has {model.config.vocab_size} tokens, not {vocab_size}")
    sums = {name: FidelitySums() for name in (REFERENCE, *others)}
    for ids in sequences:
        _add(reference, others, sums, ids)
        advance(len(ids))
    return {name: one.fidelity for name, one in sums.items()}


def _add(
    reference: ScoredModel,
    others: Mapping[str, ScoredModel],
    sums: Mapping[str, FidelitySums],
    ids: Ids,
) -> None:
    targets, start = torch.tensor(ids[1:]), 0
    streams = {name: model.log_probs(ids) for name, model in others.items()}
    for true in reference.log_probs(ids):
        follow = targets[start : start + len(true)]
        sums[REFERENCE].add(true, true, follow)
        for name, stream in streams.items():
            sums[name].add(next(stream), true, follow)
        start += len(true)
