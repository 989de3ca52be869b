"""The sampler against transformers' processors, and batched rows against single ones."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.sampling.processors import process_logits
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.sampler import Sampler
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.sampling.oracle import PLAIN, make_row, probabilities, scores

VOCAB = 50
# Large enough for every shortcut, and not divisible by the sizes of their parts.
LARGE = 5003
GREEDY = SamplingParams(temperature=0, repetition_penalty=1)
EOS = 3


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads only slow many small operations down when other processes run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_logits(seed: int, rows: int = 1, vocab_size: int = VOCAB, scale: float = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, vocab_size, generator=generator) * scale


def sample(logits: Tensor, rows: list[SamplingRow]) -> list[int]:
    return [token.token_id for token in Sampler().sample(logits.clone(), rows)]


def test_greedy_is_argmax() -> None:
    logits = random_logits(1, rows=4)
    assert sample(logits, [make_row(GREEDY)] * 4) == logits.argmax(-1).tolist()


# Vocabulary size, scale of the logits and settings: cases for every sampling method.
CASES: dict[str, tuple[int, float, dict[str, Any]]] = {
    "no truncation, few ids": (VOCAB, 3, {}),
    "no truncation": (LARGE, 1.5, {}),
    "top-k": (LARGE, 3, {"top_k": 5}),
    "top-k, more ids": (LARGE, 1.5, {"top_k": 200, "top_p": 0.9}),
    "top-k, most ids": (LARGE, 1.5, {"top_k": 1000, "top_p": 0.9}),
    "top-k beyond the vocabulary": (VOCAB, 3, {"top_k": 500, "top_p": 0.9}),
    "top-p, peaked": (LARGE, 3, {"top_p": 0.8, "temperature": 0.8}),
    "top-p, flat": (LARGE, 0.5, {"top_p": 0.3}),
    "min-p": (LARGE, 2, {"min_p": 0.03}),
    "min-p and top-p": (LARGE, 2, {"min_p": 0.02, "top_p": 0.8, "temperature": 1.5}),
    "MOSS": (LARGE, 3, {"temperature": 0.7, "top_p": 0.8, "top_k": 40}),
    "eos, whole vocabulary": (LARGE, 1.5, {"length_penalty": 1.5, "regulation_start": 10}),
    "eos, top-k": (LARGE, 3, {"length_penalty": 0.8, "top_k": 40, "regulation_start": 10}),
    "eos, top-p": (LARGE, 2, {"length_penalty": 1.5, "top_p": 0.9, "regulation_start": 10}),
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("vocab_size", "scale", "changes"), CASES.values(), ids=CASES.keys())
def test_distribution_is_that_of_transformers(
    vocab_size: int, scale: float, changes: dict[str, Any]
) -> None:
    """2,000 draws with distinct seeds pass the chi-square test against transformers' probabilities
    and never yield an id of probability 0."""
    num_draws, num_batches, position = 2000, 4, 14
    params = SamplingParams(**{**PLAIN, **changes})
    logits = random_logits(7, vocab_size=vocab_size, scale=scale)
    logits[0, EOS] = logits.max() - 1
    bonus = {EOS: params.length_penalty ** max(0, position - params.regulation_start)}
    probs = probabilities(logits[0], params, bonus)
    drawn: Counter[int] = Counter()
    for batch in range(num_batches):
        seeds = range(batch * num_draws, (batch + 1) * num_draws, num_batches)
        rows = [make_row(params, seed=seed, position=position, eos_id=EOS) for seed in seeds]
        drawn.update(sample(logits.expand(len(rows), -1), rows))
    assert all(probs[token_id] > 0 for token_id in drawn)
    assert chi_square(drawn, probs, num_draws) < 3.72  # one in ten thousand


def chi_square(drawn: Counter[int], probs: Tensor, num_draws: int) -> float:
    """The statistic in standard deviations (Wilson and Hilferty), rare ids in one cell."""
    expected = {token_id: p * num_draws for token_id, p in enumerate(probs.tolist())}
    common = [token_id for token_id, count in expected.items() if count >= 5]
    cells = [(drawn[token_id], expected[token_id]) for token_id in common]
    rare = num_draws - sum(count for _, count in cells)
    if rare > 5:
        cells.append((num_draws - sum(drawn[token_id] for token_id in common), rare))
    freedom = len(cells) - 1
    statistic = sum((count - mean) ** 2 / mean for count, mean in cells)
    spread = 2 / (9 * freedom)
    cube_root: float = (statistic / freedom) ** (1 / 3)
    return (cube_root - 1 + spread) / math.sqrt(spread)


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_greedy_is_argmax_of_transformers_scores(data: st.DataObject) -> None:
    ids = st.lists(st.integers(0, VOCAB - 1), max_size=20)
    prompt, output = data.draw(ids), data.draw(ids)
    params = SamplingParams(
        temperature=0,
        repetition_penalty=data.draw(st.floats(0.5, 3)),
        presence_penalty=data.draw(st.floats(-2, 2)),
        frequency_penalty=data.draw(st.floats(-2, 2)),
        logit_bias=tuple(
            data.draw(st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-9, 9))).items()
        ),
    )
    logits = random_logits(data.draw(st.integers(0, 999)))
    expected = scores(logits[0], params, prompt, output)
    changed = logits.clone()
    (token,) = Sampler().sample(changed, [make_row(params, prompt, output)])
    torch.testing.assert_close(changed[0], expected)
    assert token.token_id == expected.argmax().item()


def test_logprobs_are_of_the_models_distribution() -> None:
    params = SamplingParams(
        temperature=0.2, logprobs=4, logit_bias=((9, 50.0),), repetition_penalty=2
    )
    logits = random_logits(6, rows=3)
    expected = logits.log_softmax(-1)
    rows = [make_row(params, [1, 2]), make_row(GREEDY), make_row(params, seed=1)]
    first, second, third = Sampler().sample(logits.clone(), rows)
    for token, logprobs in ((first, expected[0]), (third, expected[2])):
        assert token.token_id == 9
        assert token.logprob == pytest.approx(logprobs[9].item())
        best = logprobs.topk(4)
        ids, values = zip(*token.top_logprobs, strict=True)
        assert list(ids) == best.indices.tolist()
        assert values == pytest.approx(best.values.tolist())
    assert second == SampledToken(int(logits[1].argmax()), None, ())


def test_logprobs_of_the_whole_vocabulary_sum_to_one() -> None:
    params = SamplingParams(temperature=0, logprobs=20, logit_bias=((1, 3.0),))
    (token,) = Sampler().sample(random_logits(6, vocab_size=20), [make_row(params)])
    values = torch.tensor([logprob for _, logprob in token.top_logprobs])
    assert len(values) == 20
    assert values.exp().sum().item() == pytest.approx(1)


def test_zero_top_logprobs_still_gives_the_sampled_tokens_logprob() -> None:
    params = SamplingParams(temperature=0, logprobs=0, repetition_penalty=1)
    (token,) = Sampler().sample(random_logits(6), [make_row(params)])
    assert token.logprob == pytest.approx(random_logits(6).log_softmax(-1).max().item())
    assert token.top_logprobs == ()


def test_seed_reproduces_the_draws() -> None:
    params = SamplingParams(temperature=2, top_k=0, top_p=1)
    logits = random_logits(3)

    def draws(seed: int) -> list[int]:
        rows = [make_row(params, seed=seed, position=i) for i in range(20)]
        return sample(logits.expand(20, -1), rows)

    assert draws(5) == draws(5) != draws(6)
    assert len(set(draws(5))) > 3


@pytest.mark.parametrize("params", [GREEDY, SamplingParams(temperature=5, top_k=0, top_p=1)])
def test_blocked_ids_are_never_sampled(params: SamplingParams) -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, [4, 9]] = 200
    blocked = [make_row(params, position=i, blocked_ids=(4, 9)) for i in range(50)]
    assert not {4, 9} & set(sample(logits.expand(50, -1), blocked))
    assert sample(logits, [make_row(params)])[0] in (4, 9)


def test_a_bias_on_eos_adds_up_with_the_length_penalty_before_it_is_rounded() -> None:
    """Two additions to one logit would have no order."""
    params = SamplingParams(
        temperature=0,
        repetition_penalty=1,
        length_penalty=1.3,
        regulation_start=0,
        logit_bias=((EOS, 0.3),),
    )
    row = make_row(params, position=7, eos_id=EOS)
    differing = 0
    for seed in range(20):
        logits = random_logits(seed)
        once = logits[0, EOS] + torch.tensor(0.3 + row.eos_bonus)
        differing += bool(once != logits[0, EOS] + 0.3 + torch.tensor(row.eos_bonus))
        process_logits(logits, [row])
        assert logits[0, EOS] == once
    assert differing


def test_length_penalty_ends_a_greedy_reply() -> None:
    """eos starts at 0.01 times the best probability, so it needs seven doublings to pass it."""
    logits = torch.full((1, VOCAB), -20.0)
    logits[0, 8], logits[0, EOS] = 0, torch.tensor(0.01).log()
    params = SamplingParams(
        temperature=0, repetition_penalty=1, length_penalty=2, regulation_start=30
    )
    rows = [make_row(params, position=i, eos_id=EOS) for i in range(50)]
    assert sample(logits.expand(50, -1), rows) == [8] * 37 + [EOS] * 13
    without = [make_row(params, position=49)]
    assert sample(logits, without) == [8]


@pytest.mark.parametrize("top_k", [0, 40])
def test_length_penalty_does_not_unblock_eos(top_k: int) -> None:
    params = SamplingParams(temperature=1, top_k=top_k, length_penalty=10, regulation_start=0)
    row = make_row(params, position=5000, eos_id=EOS, blocked_ids=(EOS,))
    assert sample(random_logits(2), [row]) != [EOS]
    free = make_row(params, position=5000, eos_id=EOS)
    logits = random_logits(2)
    logits[0, EOS] = logits.max()
    assert sample(logits, [free]) == [EOS]


@pytest.mark.parametrize("temperature", [1e-4, 1e-12, 5e-324])
@pytest.mark.parametrize("vocab_size", [VOCAB, LARGE])
@pytest.mark.parametrize("top_p", [1, 0.9])
def test_tiny_temperature_is_greedy(temperature: float, vocab_size: int, top_p: float) -> None:
    params = SamplingParams(temperature=temperature, repetition_penalty=1, top_k=0, top_p=top_p)
    logits = random_logits(2, vocab_size=vocab_size)
    assert sample(logits, [make_row(params)]) == logits.argmax(-1).tolist()


def test_strongest_truncations_are_greedy() -> None:
    logits = random_logits(4)
    for params in (
        SamplingParams(temperature=9, top_k=1, top_p=1, repetition_penalty=1),
        SamplingParams(temperature=9, top_k=0, top_p=1e-9, repetition_penalty=1),
        SamplingParams(temperature=9, top_k=0, top_p=1, min_p=1, repetition_penalty=1),
    ):
        assert sample(logits, [make_row(params)]) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("top_k", [0, 40])
def test_the_smallest_repetition_penalty_leaves_finite_scores(top_k: int) -> None:
    logits = random_logits(5)
    params = SamplingParams(repetition_penalty=5e-324, top_k=top_k, top_p=1)
    best = int(logits.argmax())
    assert sample(logits, [make_row(params, [best, EOS])]) == [best]


def test_no_rows() -> None:
    assert sample(torch.empty(0, VOCAB), []) == []


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("change", "is_kept"), [(-1e-12, False), (1e-12, True)])
def test_the_end_of_top_p_is_decided_in_fp64(change: float, is_kept: bool) -> None:
    """Whether the third token is kept, where an fp32 sum over the vocabulary cannot tell."""
    logits = random_logits(7, vocab_size=LARGE)
    values, ids = logits[0].sort(descending=True)
    weights = (values - values[0]).double().exp()
    top_p = (weights[:2].sum() / weights.sum()).item() * (1 + change)
    params = SamplingParams(**{**PLAIN, "top_p": top_p})
    rows = [make_row(params, seed=seed) for seed in range(100)]
    drawn = set(sample(logits.expand(len(rows), -1), rows))
    assert drawn == set(ids[: 2 + is_kept].tolist())
