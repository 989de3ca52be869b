"""Functions that the parity tests run on every rank: module-level, so that they can be spawned.

`measure` collects everything for one tensor-parallel size, since starting ranks costs more than
all measurements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moss_tp.config import ModelConfig
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.load import load_weights
from tests.support.paged_sequences import PagedSequences

STEPS = 64
PROMPTS: Mapping[str, Sequence[int]] = {
    "short": [7],
    "middle": [40, 50, 60, 70, 80, 90, 100, 110, 120],
    "long": list(range(3, 60)),
}
LOGIT_IDS = [token * 37 % 277 for token in range(50)]

Replies = dict[str, list[int]]


@dataclass(frozen=True)
class Measured:
    """One checkpoint at one tp_size. Logits `(50, vocab_size)` of LOGIT_IDS, on rank 0 only."""

    tp_size: int
    logits: Tensor | None
    step_counts: dict[str, int]
    replies: dict[str, Replies]  # by schedule


def measure(
    group: TPGroup, greedy: Sequence[str], paths: Mapping[str, Path]
) -> dict[str, Measured]:
    """Logits and collectives for every checkpoint, replies for those named in `greedy`."""
    measured = {}
    for name, path in paths.items():
        config = ModelConfig.from_dir(path)
        model = load_model(path, config, group, torch.float32)
        group.counts.clear()
        logits = logits_of(model, config, group)
        counts = dict(group.counts)
        replies = {}
        if name in greedy:
            replies = {name: run(model, config, group) for name, run in SCHEDULES.items()}
        measured[name] = Measured(group.size, logits, counts, replies)
    return measured


def logits_of(model: MossForCausalLM, config: ModelConfig, group: TPGroup) -> Tensor | None:
    return PagedSequences(model, config, group).step({"all": LOGIT_IDS}, every_row=True)


def logits_by_schedule(
    group: TPGroup, path: Path, dtype: torch.dtype, cache_dtype: torch.dtype
) -> dict[str, Tensor | None]:
    """Logits of LOGIT_IDS from one prefill, and from one decode step per token."""
    config = ModelConfig.from_dir(path)
    model = load_model(path, config, group, dtype)
    prefill = PagedSequences(model, config, group, dtype=cache_dtype)
    decode = PagedSequences(model, config, group, dtype=cache_dtype)
    steps = [decode.step({"all": [token]}) for token in LOGIT_IDS]
    rows = [step for step in steps if step is not None]
    return {
        "prefill": prefill.step({"all": LOGIT_IDS}, every_row=True),
        "decode": torch.cat(rows) if rows else None,
    }


def alone(model: MossForCausalLM, config: ModelConfig, group: TPGroup) -> Replies:
    """Each prompt alone: one prefill, then decodes."""
    return {
        name: _decode(PagedSequences(model, config, group), {name: prompt})[name]
        for name, prompt in PROMPTS.items()
    }


def batched(model: MossForCausalLM, config: ModelConfig, group: TPGroup) -> Replies:
    """All prompts, of three lengths, in one batch."""
    return _decode(PagedSequences(model, config, group), PROMPTS)


def chunked(model: MossForCausalLM, config: ModelConfig, group: TPGroup) -> Replies:
    """The long prompt in chunks of 10, batched with decodes of the others."""
    sequences = PagedSequences(model, config, group)
    replies: Replies = {"short": [], "middle": []}
    remaining = list(PROMPTS["long"])
    pending: dict[str, Sequence[int]] = {name: PROMPTS[name] for name in replies}
    while remaining:
        chunk, remaining = remaining[:10], remaining[10:]
        tokens = sequences.greedy({**pending, "long": chunk})
        last = tokens.pop("long")
        for name, token in tokens.items():
            replies[name].append(token)
        pending = {name: [token] for name, token in tokens.items()}
    replies["long"] = [last]
    rest = _decode(sequences, {**pending, "long": [last]}, replies)
    return {name: reply[:STEPS] for name, reply in rest.items()}


def preempted(model: MossForCausalLM, config: ModelConfig, group: TPGroup) -> Replies:
    """Halfway the middle one loses its blocks; prompt and output are prefilled again."""
    sequences = PagedSequences(model, config, group)
    replies = _decode(sequences, PROMPTS, steps=STEPS // 2)
    sequences.drop("middle")
    pending = {name: [reply[-1]] for name, reply in replies.items()}
    pending["middle"] = [*PROMPTS["middle"], *replies["middle"]]
    return _decode(sequences, pending, replies, steps=STEPS // 2)


def _decode(
    sequences: PagedSequences,
    pending: Mapping[str, Sequence[int]],
    replies: Replies | None = None,
    steps: int = STEPS,
) -> Replies:
    """`replies` with `steps` more greedy tokens each."""
    extended = {name: list((replies or {}).get(name, ())) for name in pending}
    for _ in range(steps):
        tokens = sequences.greedy(pending)
        for name, token in tokens.items():
            extended[name].append(token)
        pending = {name: [token] for name, token in tokens.items()}
    return extended


SCHEDULES = {"alone": alone, "batched": batched, "chunked": chunked, "preempted": preempted}


class DroppingGroup(TPGroup):
    """A group that skips the `dropped`th all-reduce of a step."""

    dropped = 0

    def all_reduce(self, x: Tensor) -> Tensor:
        self.counts["attempted"] += 1
        if self.counts["attempted"] - 1 == self.dropped:
            return x
        return super().all_reduce(x)


def _with_bias_on_rank_0(path: Path, group: TPGroup) -> MossForCausalLM:
    model = MossForCausalLM(ModelConfig.from_dir(path), group, torch.float32)
    load_weights(model, path)
    for name, parameter in model.named_parameters():
        if name.endswith("fc_out.bias") and group.rank > 0:
            parameter.zero_()
    model.pack()
    return model


def broken_logits(group: TPGroup, path: Path) -> dict[str, Tensor | None]:
    """Logits of one correct model and of broken ones that the parity tests must catch."""
    config = ModelConfig.from_dir(path)
    model = load_model(path, config, group, torch.float32)
    logits = {"correct": logits_of(model, config, group)}
    logits["bias on rank 0"] = logits_of(_with_bias_on_rank_0(path, group), config, group)
    for dropped in range(config.num_layers + 1):
        broken = DroppingGroup(group.rank, group.size, group.device, group._control, group._data)
        broken.dropped = dropped
        model = load_model(path, config, broken, torch.float32)
        logits[f"all-reduce {dropped} dropped"] = logits_of(model, config, broken)
    return logits
