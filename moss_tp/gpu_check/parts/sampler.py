"""The device's sampler against the CPU's, on random rows with settings of every kind."""

import time
from random import Random
from typing import Any

import numpy as np
import torch

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.kernels.cuda.sampling.device_sampler import DeviceSampler
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.sampler import Sampler
from moss_tp.sampling.token_history import TokenHistory
from moss_tp.sampling_params import SamplingParams

ROWS = 512
SECONDS = 12.0  # of the part's time
MOST_ROWS = 1_000_000
VOCABULARIES = (277, 701, 4099, 51200)
# Most values leave a setting off, so that each kind of draw is frequent.
SETTINGS: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 0.3, 0.7, 1, 1, 1.5),
    "top_k": (0, 0, 0, 1, 40, 255, 256, 300, 10_000),
    "top_p": (1, 1, 1, 0.01, 0.5, 0.8, 0.99),
    "min_p": (0, 0, 0, 0.01, 0.5),
    "repetition_penalty": (1, 1, 1.02, 1.3, 0.7),
    "presence_penalty": (0, 0, 0.4, -0.7),
    "frequency_penalty": (0, 0, 0.3, -0.1),
    "length_penalty": (1, 1, 1.3, 0.4),
}


def run(check: Check) -> None:
    start, num_rows, differing = time.monotonic(), 0, 0
    most, rows = (MOST_ROWS, ROWS) if check.is_full else (64, 16)
    vocabularies = VOCABULARIES if check.is_full else VOCABULARIES[:2]
    samplers = {size: _device_sampler(check, size, rows) for size in vocabularies}
    while num_rows < most and time.monotonic() - start < SECONDS:
        random = Random(num_rows)
        # Large ones are rare: the CPU takes long for them.
        size = random.choice(vocabularies[:2] * 8 + vocabularies[2:])
        made = [random_row(random, size) for _ in range(rows)]
        scale = random.choice((0.5, 2.0, 4.0))
        logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(num_rows)) * scale
        found = _sample(check, samplers[size], logits, made)
        expected = Sampler().sample(logits, made)
        wrong = [i for i in range(rows) if found[i].token_id != expected[i].token_id]
        for i in wrong[:5]:
            check.figure(f"vocabulary {size}, row {num_rows + i}", str(made[i].params))
        differing, num_rows = differing + len(wrong), num_rows + rows
    note = f"of {num_rows:,}"
    bar = num_rows // MOST_ROWS
    check.verdict(Verdict("rows that differ", differing, bar=bar, sense="at most", note=note))


def random_row(random: Random, vocab_size: int) -> SamplingRow:
    values = {name: random.choice(choices) for name, choices in SETTINGS.items()}
    biased = random.sample(range(vocab_size), random.choice((0, 0, 0, 1, 30)))
    bias = tuple((i, random.choice((-100.0, random.uniform(-5, 5)))) for i in biased)
    params = SamplingParams(**values, logit_bias=bias, regulation_start=random.choice((0, 3)))
    history = TokenHistory(random.choices(range(vocab_size), k=random.randrange(20)))
    position = random.randrange(20)
    for token_id in random.choices(range(vocab_size), k=position):
        history.append(token_id)
    return SamplingRow(
        params,
        seed=random.getrandbits(63),
        position=position,
        history=history if params.has_penalties else None,
        blocked_ids=tuple(random.sample(range(vocab_size), random.choice((0, 0, 2)))),
        eos_id=random.choice((None, random.randrange(vocab_size))),
    )


def _device_sampler(check: Check, vocab_size: int, rows: int) -> DeviceSampler:
    return DeviceSampler(vocab_size, rows, rows, check.device, lambda work: work())


def _sample(
    check: Check, sampler: DeviceSampler, logits: torch.Tensor, rows: list[SamplingRow]
) -> list[SampledToken]:
    block = np.zeros(sampler.num_ints, np.int32)
    sampler.encode(rows, block, len(rows))
    sampler.sample(logits.to(check.device, copy=True), torch.from_numpy(block).to(check.device))
    return sampler.decode(sampler.outputs.cpu(), rows)
