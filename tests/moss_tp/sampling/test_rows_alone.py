"""A row's token and logprobs are the same to the bit alone and anywhere in any batch.

Vectors of an odd vocabulary begin at another place in every row, long rows are cut between
threads, and padded logits are strided: none of that may show. Run again as torch computes on
other CPUs.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.sampler import Sampler
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.sampling.oracle import PLAIN, make_row

EOS = 3
# The second is large enough for every shortcut, and neither is a multiple of any part's size.
VOCABS = [50, 5003]
NUM_COMPARED = 6  # rows of a batch

Sample = Callable[[Tensor, Sequence[SamplingRow]], Sequence[SampledToken]]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads only slow many small operations down when other processes run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@st.composite
def requests(draw: st.DrawFn, vocab_size: int) -> SamplingRow:
    ids = st.integers(0, vocab_size - 1)
    params = SamplingParams(
        temperature=draw(st.sampled_from([0, 0.5, 1.7])),
        top_k=draw(st.sampled_from([0, 1, 40, 100, 700])),
        top_p=draw(st.sampled_from([0.3, 0.9, 1.0])),
        min_p=draw(st.sampled_from([0, 0, 0.1])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.2])),
        presence_penalty=draw(st.sampled_from([0, 0.5])),
        frequency_penalty=draw(st.sampled_from([0, -0.5])),
        logit_bias=draw(st.sampled_from([(), ((2, 5.0), (7, -100.0)), ((EOS, 0.3),)])),
        length_penalty=draw(st.sampled_from([1, 1.3])),
        regulation_start=5,
        logprobs=draw(st.sampled_from([None, 0, 3])),
    )
    return make_row(
        params,
        prompt=draw(st.lists(ids, max_size=5)),
        output=draw(st.lists(ids, max_size=5)),
        seed=draw(st.integers(0, 2**63 - 1)),
        position=draw(st.integers(0, 20)),
        blocked_ids=draw(st.sampled_from([(), (1, 2)])),
        eos_id=draw(st.sampled_from([None, EOS])),
    )


def random_logits(seed: int, rows: int, vocab_size: int, scale: float, padding: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(rows, vocab_size + padding, generator=generator) * scale
    return wide[:, :vocab_size]


def assert_rows_stand_alone(
    sample: Sample, logits: Tensor, rows: Sequence[SamplingRow], compared: Sequence[int]
) -> None:
    batched = sample(logits.clone(), rows)
    for i in compared:
        for own in (logits[i : i + 1].clone(), logits.clone()[i : i + 1]):
            assert sample(own, rows[i : i + 1])[0] == batched[i]


@pytest.mark.usefixtures("one_thread")
@given(st.data(), st.sampled_from(VOCABS), st.sampled_from([0.5, 3.0]), st.sampled_from([0, 3]))
@settings(deadline=None, max_examples=60)
def test_mixed_rows(data: st.DataObject, vocab_size: int, scale: float, padding: int) -> None:
    kinds = data.draw(st.lists(requests(vocab_size), min_size=1, max_size=6))
    num_rows = data.draw(st.integers(2, 64))
    picks = st.lists(st.sampled_from(kinds), min_size=num_rows, max_size=num_rows)
    rows = kinds + data.draw(picks)
    logits = random_logits(data.draw(st.integers(0, 99)), len(rows), vocab_size, scale, padding)
    if data.draw(st.booleans()):  # ties, also at the cut of top-k
        logits = logits.round()
    numbers = st.lists(st.integers(0, len(rows) - 1), max_size=NUM_COMPARED)
    compared = [*range(len(kinds)), *data.draw(numbers)]
    assert_rows_stand_alone(Sampler().sample, logits, rows, compared)


@pytest.mark.parametrize("vocab_size", [107_008, 40_009])
@pytest.mark.parametrize("num_threads", [1, 4])
def test_full_vocabularies(vocab_size: int, num_threads: int) -> None:
    """torch splits a single row of so many ids among threads."""
    changes: list[dict[str, Any]] = [
        {},
        {"top_p": 0.9},
        {"top_k": 40},
        {"min_p": 0.01},
        {"temperature": 0},
    ]
    params = [SamplingParams(**{**PLAIN, **one}, logprobs=2) for one in changes]
    rows = [make_row(one, seed=seed) for seed in range(3) for one in params]
    logits = random_logits(8, len(rows), vocab_size, scale=2)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        assert_rows_stand_alone(Sampler().sample, logits, rows, range(len(rows)))
    finally:
        torch.set_num_threads(before)


def shared_noise(logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
    """Draws one number after the other, whoever asks."""
    noise = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1))
    return [SampledToken(int(token_id)) for token_id in (logits + noise).argmax(-1)]


def test_a_sampler_that_mixes_rows_is_noticed() -> None:
    rows = [make_row(SamplingParams(**PLAIN))] * 20
    logits = random_logits(8, len(rows), 5003, scale=0.1)
    with pytest.raises(AssertionError):
        assert_rows_stand_alone(shared_noise, logits, rows, range(len(rows)))


# torch's own builds of its operations, which it chooses by the processor.
@pytest.mark.skipif("ATEN_CPU_CAPABILITY" in os.environ, reason="this is such a run")
@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_on_other_processors(capability: str) -> None:
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    variables = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run(run, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
