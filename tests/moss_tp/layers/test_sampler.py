from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from moss_tp.layers.sampler import Sampler
from moss_tp.layers.sampling.row import SamplingRow
from moss_tp.layers.sampling.token_history import TokenHistory
from moss_tp.sampling_params import SamplingParams

VOCAB = 50
GREEDY = SamplingParams(temperature=0, repetition_penalty=1)


def random_logits(seed: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def row(
    params: SamplingParams, ids: list[int] | None = None, seed: int = 0, position: int = 0
) -> SamplingRow:
    return SamplingRow(params, seed, position, TokenHistory(ids or []).counts)


def sample(logits: Tensor, rows: list[SamplingRow]) -> list[int]:
    return [token.token_id for token in Sampler().sample(logits.clone(), rows)]


def test_greedy_is_the_argmax() -> None:
    logits = random_logits(1, rows=4)
    assert sample(logits, [row(GREEDY)] * 4) == logits.argmax(-1).tolist()


@given(st.integers(0, 999), st.lists(st.integers(0, VOCAB - 1), min_size=1), st.floats(0.5, 3))
@settings(deadline=None)
def test_repetition_penalty_is_transformers(seed: int, ids: list[int], penalty: float) -> None:
    logits = random_logits(seed)
    oracle = RepetitionPenaltyLogitsProcessor(penalty)
    expected = oracle(torch.tensor([ids]), logits.clone())
    params = SamplingParams(temperature=0, repetition_penalty=penalty)
    changed = logits.clone()
    (token,) = Sampler().sample(changed, [row(params, ids)])
    assert token.token_id == expected.argmax(-1).item()
    torch.testing.assert_close(changed, expected)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1, top_k=0, top_p=1, repetition_penalty=1),
        SamplingParams(temperature=0.7, top_k=5, top_p=1, repetition_penalty=1),
        SamplingParams(temperature=1.5, top_k=0, top_p=0.6, repetition_penalty=1),
        SamplingParams(temperature=1.3, top_k=12, top_p=0.8, repetition_penalty=1.3),
        SamplingParams(temperature=2, top_k=500, top_p=0.9),
    ],
)
def test_the_distribution_is_transformers(params: SamplingParams) -> None:
    """20,000 positions of one seed: as frequent as transformers' warpers say, within five
    standard deviations, and never a token that they rule out."""
    num_draws, ids, logits = 20_000, [3, 4, 5, 6], random_logits(7)
    oracle = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(float(params.repetition_penalty)),
            TemperatureLogitsWarper(float(params.temperature)),
            *([TopKLogitsWarper(params.top_k)] if params.top_k else []),
            TopPLogitsWarper(params.top_p),
        ]
    )
    probs = oracle(torch.LongTensor([ids]), logits.clone()).softmax(-1)[0].tolist()
    rows = [row(params, ids, position=i) for i in range(num_draws)]
    drawn = Counter(sample(logits.expand(num_draws, -1), rows))
    for token, prob in enumerate(probs):
        deviation = (prob * (1 - prob) / num_draws) ** 0.5
        assert abs(drawn[token] / num_draws - prob) <= 5 * deviation, token


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_a_row_does_not_depend_on_its_batch(data: st.DataObject) -> None:
    params = st.builds(
        SamplingParams,
        temperature=st.sampled_from([0, 0.5, 1.7]),
        top_k=st.sampled_from([0, 1, 7, 40]),
        top_p=st.sampled_from([0.3, 0.9, 1.0]),
        repetition_penalty=st.sampled_from([1.0, 1.2]),
    )
    all_params = data.draw(st.lists(params, min_size=2, max_size=6))
    # Whole numbers: ties, at the cut of top-k too.
    logits = random_logits(data.draw(st.integers(0, 99)), rows=len(all_params)).round()

    def make(index: int) -> SamplingRow:
        return row(all_params[index], ids=[1, 2, index], seed=index)

    together = sample(logits, [make(i) for i in range(len(all_params))])
    apart = [sample(logits[i : i + 1], [make(i)])[0] for i in range(len(all_params))]
    assert together == apart


def test_a_seed_repeats_the_draws() -> None:
    params = SamplingParams(temperature=2, top_k=0, top_p=1)
    logits = random_logits(3)

    def draws(seed: int) -> list[int]:
        return [sample(logits, [row(params, seed=seed, position=i)])[0] for i in range(20)]

    assert draws(5) == draws(5) != draws(6)
    assert len(set(draws(5))) > 3


@pytest.mark.parametrize("params", [GREEDY, SamplingParams(temperature=5, top_k=0, top_p=1)])
def test_blocked_ids_are_never_sampled(params: SamplingParams) -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, [4, 9]] = 200
    blocked = [SamplingRow(params, 0, i, blocked_ids=(4, 9)) for i in range(50)]
    assert not {4, 9} & set(sample(logits.expand(50, -1), blocked))
    assert sample(logits, [row(params)])[0] in (4, 9)


@pytest.mark.parametrize("temperature", [1e-4, 1e-12, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    params = SamplingParams(temperature=temperature, repetition_penalty=1, top_k=0, top_p=1)
    logits = random_logits(2)
    assert sample(logits, [row(params)]) == logits.argmax(-1).tolist()


def test_top_k_1_and_a_tiny_top_p_are_greedy() -> None:
    logits = random_logits(4)
    for params in (
        SamplingParams(temperature=9, top_k=1, top_p=1, repetition_penalty=1),
        SamplingParams(temperature=9, top_k=0, top_p=1e-9, repetition_penalty=1),
    ):
        assert sample(logits, [row(params)]) == logits.argmax(-1).tolist()


def test_no_rows() -> None:
    assert sample(torch.empty(0, VOCAB), []) == []
