"""The sampling rows of a sequence: the same for each position, drafted or not."""

from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling.token_history import TokenCounts
from moss_tp.sampling_params import SamplingParams

EOS = 9
ids = st.lists(st.integers(0, 8), min_size=1, max_size=12)


def sequence(prompt: list[int], params: SamplingParams) -> Sequence:
    return Sequence("r", list(prompt), params, frozenset([EOS, 7]), eos_id=EOS)


def as_dict(counts: TokenCounts | None) -> dict[int, int]:
    assert counts is not None
    return dict(zip(counts.ids.tolist(), counts.num_output.tolist(), strict=True))


@given(ids, ids, st.integers(0, 12))
def test_a_drafted_position_is_sampled_like_an_ordinary_one(
    prompt: list[int], output: list[int], num_said: int
) -> None:
    params = SamplingParams(presence_penalty=1, min_tokens=3, max_tokens=90, seed=4)
    later, now = sequence(prompt, params), sequence(prompt, params)
    for i, token_id in enumerate(output):
        if i < num_said:
            now.append(SampledToken(token_id), 100)
        later.append(SampledToken(token_id), 100)
    ahead, then = now.sampling_row(output[num_said:]), later.sampling_row()
    assert as_dict(ahead.counts) == as_dict(then.counts)
    assert (ahead.seed, ahead.position) == (then.seed, then.position) == (4, len(output))
    assert ahead.blocked_ids == then.blocked_ids == ((7, EOS) if len(output) < 3 else ())
    assert ahead.eos_id == then.eos_id == EOS


def test_without_penalties_nothing_is_counted() -> None:
    seq = sequence([1, 2], SamplingParams(repetition_penalty=1))
    assert seq.sampling_row().counts is None
    assert seq.sampling_row([3]).counts is None


def test_new_tokens_are_taken_once() -> None:
    seq = sequence([1], SamplingParams())
    said = [SampledToken(token_id) for token_id in (3, 4, 5)]
    for token in said[:2]:
        seq.append(token, 100)
    assert seq.take_new() == said[:2]
    seq.append(said[2], 100)
    assert seq.take_new() == said[2:]
    assert seq.take_new() == []
