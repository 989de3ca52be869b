"""The device's sampler against the CPU's, to the id, over all settings."""

import random
from dataclasses import replace

import pytest
import torch

from moss_tp.sampling.row import SampledToken
from tests.moss_tp.kernels.cuda.sampling.random_rows import (
    Case,
    make_sampler,
    random_case,
    sample_on_cpu,
    sample_on_device,
)

VOCABS = (5, 50, 64, 65, 255, 256, 257, 500, 701)


def ids(tokens: list[SampledToken]) -> list[tuple[int, ...]]:
    """The sampled id of each row, then the ids with the best logprobs."""
    return [(token.token_id, *(i for i, _ in token.top_logprobs)) for token in tokens]


def num_differing(case: Case) -> int:
    on_device, on_cpu = sample_on_device(make_sampler(case), case), sample_on_cpu(case)
    return sum(a != b for a, b in zip(ids(on_device), ids(on_cpu), strict=True))


@pytest.mark.parametrize("vocab_size", VOCABS)
def test_ids_equal_the_cpu_samplers(vocab_size: int) -> None:
    assert sum(num_differing(random_case(seed, 200, vocab_size)) for seed in range(10)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_larger_vocabulary(dtype: torch.dtype) -> None:
    """Large enough for the CPU's shortcuts, with ties at their cuts."""
    assert num_differing(random_case(5, 200, 5003, dtype)) == 0


def test_another_seed_is_noticed() -> None:
    case = random_case(1, 200, 500)
    other = Case(case.logits, [replace(row, seed=row.seed ^ 1) for row in case.rows])
    on_device = ids(sample_on_device(make_sampler(case), case))
    assert sum(a != b for a, b in zip(on_device, ids(sample_on_cpu(other)), strict=True)) > 50


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_million_rows() -> None:
    rows = 500
    vocabs = (random.Random(seed).choice(VOCABS) for seed in range(1_000_000 // rows))
    cases = (random_case(1000 + i, rows, vocab_size) for i, vocab_size in enumerate(vocabs))
    assert sum(num_differing(case) for case in cases) == 0
