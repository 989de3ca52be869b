"""The sampler's kernels under Triton's interpreter, against the torch reference."""

import random
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted
from moss_tp.kernels.cuda.sampling import functions
from moss_tp.kernels.cuda.sampling.device_sampler import MAX_ENTRIES_OF_ROW
from moss_tp.kernels.cuda.sampling.functions import greatest, uniform
from moss_tp.kernels.cuda.sampling.ids import take_ids
from moss_tp.kernels.cuda.sampling.reference import uniforms as reference_uniforms
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.token_history import TokenHistory
from moss_tp.sampling.uniforms import uniforms
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.kernels.cuda.sampling.random_rows import (
    Case,
    drafted_rows,
    make_sampler,
    random_case,
    sample_on_device,
)


def assert_equal(tokens: list[SampledToken], expected: list[SampledToken]) -> None:
    for i, (token, other) in enumerate(zip(tokens, expected, strict=True)):
        assert token.token_id == other.token_id, i
        assert token.logprob == pytest.approx(other.logprob, abs=1e-5), i
        assert [pair[0] for pair in token.top_logprobs] == [pair[0] for pair in other.top_logprobs]
        logprobs, others = ([pair[1] for pair in t.top_logprobs] for t in (token, other))
        assert logprobs == pytest.approx(others, abs=1e-5), i


def assert_kernels_agree(case: Case) -> None:
    reference, kernels = make_sampler(case), make_sampler(case)
    expected = sample_on_device(reference, case)
    with interpreted():
        tokens = sample_on_device(kernels, case)
    assert_equal(tokens, expected)
    assert torch.equal(kernels.state.counts, reference.state.counts)
    assert torch.equal(kernels.state.sampled, reference.state.sampled)


@pytest.mark.parametrize(
    ("vocab_size", "rows", "dtype"),
    [
        (50, 24, torch.float32),
        (257, 32, torch.float16),
        (701, 48, torch.float32),
        (4099, 24, torch.bfloat16),
        (9001, 24, torch.float32),
    ],
)
def test_random_rows(vocab_size: int, rows: int, dtype: torch.dtype) -> None:
    assert_kernels_agree(random_case(vocab_size, rows, vocab_size, dtype))


# Settings, and the logits' scale: what each kind of row is decided by.
BOUNDARIES: list[dict[str, Any]] = [
    {"top_k": 64, "top_p": 0.9},
    {"top_k": 65},
    {"top_k": 256},
    {"top_k": 257, "top_p": 0.5},
    {"top_k": 700, "min_p": 0.1},
    {"top_p": 0.999},
    {"top_p": 0.5, "min_p": 0.3},
    {"top_p": 0.3, "temperature": 1e-30},
    {"temperature": 1e-30},
    {"length_penalty": 10, "top_p": 0.999},
    {"length_penalty": 1e-9},
    {"length_penalty": 1e-9, "min_p": 0.5},
]


@pytest.mark.parametrize("step", [0.0, 0.5, 99.0], ids=["distinct", "ties", "all equal"])
def test_boundaries(step: float) -> None:
    plain: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1}
    params = [SamplingParams(**{**plain, **one}, regulation_start=0) for one in BOUNDARIES]
    logits = torch.randn(len(params), 900, generator=torch.Generator().manual_seed(3))
    if step:
        logits = (logits / step).round() * step
    logits[:, 5] = logits.amax(dim=-1) + 1  # eos is the best
    rows = [SamplingRow(one, 9 + i, 60, eos_id=5) for i, one in enumerate(params)]
    assert_kernels_agree(Case(logits, rows))


def test_drafted_rows_with_penalties() -> None:
    """Idle rows follow; logits are strided."""
    params = SamplingParams(temperature=0, repetition_penalty=1.5, frequency_penalty=1, logprobs=2)
    history = TokenHistory([1, 2])
    row = SamplingRow(params, 1, 0, history)
    rows = [SamplingRow(params, 1, 0, TokenHistory([3])), *drafted_rows(row, [4, 1, 4])]
    wide = torch.randn(8, 60, generator=torch.Generator().manual_seed(5))
    case = Case(wide[:, :53], rows)
    assert_kernels_agree(case)
    with pytest.raises(ValueError, match="do not lie side by side"):
        sample_on_device(make_sampler(case), Case(case.logits, rows[::-1]))


def test_more_entries_than_the_block_holds() -> None:
    biases = tuple((i, float(i % 7)) for i in range(90))
    params = SamplingParams(temperature=0, repetition_penalty=1, logit_bias=biases)
    rows = [SamplingRow(params, i, 0, blocked_ids=(i, 83)) for i in range(3)]
    assert 3 * 64 < 3 * 90 < 3 * MAX_ENTRIES_OF_ROW
    case = Case(torch.zeros(3, 101), rows)
    assert_kernels_agree(case)
    assert [t.token_id for t in sample_on_device(make_sampler(case), case)] == [6, 6, 6]


def test_the_number_of_launches() -> None:
    case = random_case(0, 2, 300)
    with counted_launches() as counts:
        sample_on_device(make_sampler(case), case)
    assert sum(counts.values()) == 7


def test_a_kernel_that_draws_other_numbers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(701, 12, 701)
    monkeypatch.setattr(functions, "SEED", functions.POSITION)
    with pytest.raises(AssertionError):
        assert_kernels_agree(case)


@jit
def uniform_kernel(longs: tl.tensor, numbers: tl.tensor) -> None:
    row = tl.program_id(0)
    tl.store(numbers + row, uniform(longs, row))


@jit
def greatest_kernel(keys: tl.tensor, count: tl.tensor, out: tl.tensor, N: tl.constexpr) -> None:
    index = tl.arange(0, N)
    is_best = greatest(tl.load(keys + index).to(tl.uint32, bitcast=True), count)
    tl.store(out + index, is_best.to(tl.int32))


def test_uniform_numbers_equal_the_cpus_to_the_bit() -> None:
    rng = random.Random(2)
    seeds = [0, 1, 2**63 - 1, *(rng.getrandbits(63) for _ in range(29))]
    positions = [0, 2**40, 7, *range(29)]
    expected = uniforms(seeds, positions)
    records = torch.zeros(len(seeds), functions.RECORD.value // 2, dtype=torch.int64)
    records[:, 0], records[:, 1] = torch.tensor(seeds), torch.tensor(positions)
    numbers = torch.empty(len(seeds), dtype=torch.float64)
    uniform_kernel[(len(seeds),)](records, numbers)
    assert np.array_equal(numbers.numpy(), expected)
    reference = reference_uniforms(torch.tensor(seeds), torch.tensor(positions))
    assert np.array_equal(reference.numpy(), expected)


@pytest.mark.parametrize("count", [1, 5, 64, 128])
def test_the_greatest_of_many_equals(count: int) -> None:
    rng = np.random.default_rng(count)
    for top in (1, 3, 2**32):
        keys = rng.integers(0, top, 128, dtype=np.uint32, endpoint=False)
        order = np.argsort(-keys.astype(np.int64), kind="stable")[:count]
        out = torch.empty(128, dtype=torch.int32)
        greatest_kernel[(1,)](torch.from_numpy(keys.view(np.int32)), count, out, N=128)
        assert sorted(order) == np.flatnonzero(out.numpy()).tolist()


def test_pending_ids_are_taken_from_the_step_before() -> None:
    sampled = torch.tensor([70, 80, 90], dtype=torch.int32)
    token_ids = torch.tensor([4, -1, -3, 0, -2] * 80, dtype=torch.int32)
    expected = [4, 70, 90, 0, 80] * 80
    assert take_ids(token_ids, sampled).tolist() == expected
    with interpreted():
        out = torch.full_like(token_ids, -9)
        assert take_ids(token_ids, sampled, out) is out
    assert out.tolist() == expected
    with pytest.raises(ValueError, match="int32"):
        take_ids(token_ids.long(), sampled)
    with pytest.raises(ValueError, match="another shape"):
        take_ids(token_ids, sampled, out[:5])
