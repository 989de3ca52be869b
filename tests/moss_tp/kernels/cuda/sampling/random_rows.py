"""Rows with random settings of every kind, and logits with ties, for the device's sampler."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moss_tp.kernels.cuda.sampling.device_sampler import DeviceSampler
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.sampler import Sampler
from moss_tp.sampling.token_history import TokenHistory
from moss_tp.sampling_params import SamplingParams

# Most values leave the setting off, so that each kind of a draw is frequent.
SETTINGS: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 1e-3, 0.3, 0.7, 1, 1, 1.5, 3, 5e-324),
    "top_k": (0, 0, 0, 0, 1, 2, 40, 40, 63, 64, 65, 100, 255, 256, 257, 300, 10_000),
    "top_p": (1, 1, 1, 0.01, 0.3, 0.5, 0.8, 0.9, 0.99),
    "min_p": (0, 0, 0, 0.001, 0.05, 0.5, 1),
    "repetition_penalty": (1, 1, 1.02, 1.3, 0.7, 5e-324),
    "presence_penalty": (0, 0, 0, 0.4, -0.7),
    "frequency_penalty": (0, 0, 0, 0.3, -0.1),
    "length_penalty": (1, 1, 1.3, 0.4),
    "logprobs": (None, None, None, None, 0, 3, 20),
}


@dataclass(frozen=True)
class Case:
    logits: Tensor  # (R, vocab_size)
    rows: Sequence[SamplingRow]


def random_row(rng: random.Random, vocab_size: int) -> SamplingRow:
    values = {field: rng.choice(choices) for field, choices in SETTINGS.items()}
    biased = rng.sample(range(vocab_size), min(vocab_size, rng.choice((0, 0, 0, 1, 30))))
    params = SamplingParams(
        **values,
        logit_bias=tuple((i, rng.choice((-100.0, rng.uniform(-5, 5)))) for i in biased),
        regulation_start=rng.choice((0, 3)),
    )
    history = TokenHistory(rng.choices(range(vocab_size), k=rng.randrange(20)))
    output = rng.choices(range(vocab_size), k=rng.randrange(20))
    for token_id in output:
        history.append(token_id)
    blocked = rng.sample(range(vocab_size), min(vocab_size - 1, rng.choice((0, 0, 2))))
    return SamplingRow(
        params,
        rng.getrandbits(63),
        len(output),
        history if params.has_penalties else None,
        (),
        tuple(blocked),
        rng.choice((None, rng.randrange(vocab_size))),
    )


def random_logits(rng: random.Random, rows: int, vocab_size: int, dtype: torch.dtype) -> Tensor:
    """Some coarse, so that they have many ties; some flat, some peaked, some with -inf."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    scales = numbers.choice((0.0, 0.3, 1.0, 3.0), (rows, 1))
    values = numbers.standard_normal((rows, vocab_size)) * scales
    steps = numbers.choice((0.0, 0.0, 0.25, 1.0), (rows, 1))
    coarse = np.where(steps > 0, np.round(values / np.maximum(steps, 0.1)) * steps, values)
    is_out = numbers.random((rows, vocab_size)) < numbers.choice((0, 0, 0, 0.5, 0.9), (rows, 1))
    is_out[:, :4] = False  # of which two may be blocked
    return torch.from_numpy(np.where(is_out, -np.inf, coarse)).to(dtype)


def random_case(seed: int, rows: int, vocab_size: int, dtype: torch.dtype = torch.float32) -> Case:
    rng = random.Random(seed)
    made = [random_row(rng, vocab_size) for _ in range(rows)]
    return Case(random_logits(rng, rows, vocab_size, dtype), made)


def drafted_rows(row: SamplingRow, drafted: Sequence[int]) -> list[SamplingRow]:
    """The rows to verify `drafted` after `row`."""
    return [
        replace(row, position=row.position + i, drafted=tuple(drafted[:i]))
        for i in range(len(drafted) + 1)
    ]


def make_sampler(case: Case) -> DeviceSampler:
    """Its intermediate results and outputs are poisoned: NaN, and ids that no vocabulary has."""
    rows, vocab_size = case.logits.shape
    sampler = DeviceSampler(vocab_size, rows, rows, torch.device("cpu"), lambda work: work())
    for tensor in (sampler.outputs, *vars(sampler._scratch).values()):
        tensor.view(torch.uint8).fill_(0xFF)
    return sampler


def sample_on_device(sampler: DeviceSampler, case: Case) -> list[SampledToken]:
    block = np.full(sampler.num_ints, -7, np.int32)
    sampler.encode(case.rows, block, len(case.logits))
    sampler.sample(case.logits, torch.from_numpy(block))
    return sampler.decode(sampler.outputs.clone(), case.rows)


def sample_on_cpu(case: Case) -> list[SampledToken]:
    return Sampler().sample(case.logits.float(), case.rows)
