"""Counts kept token by token against a count of the whole reply."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from moss_tp.sampling.token_history import TokenCounts, TokenHistory

ids = st.lists(st.integers(0, 9), max_size=60)


def as_dict(counts: TokenCounts) -> dict[int, int]:
    assert len(set(counts.ids.tolist())) == len(counts.ids) == len(counts.num_output)
    return dict(zip(counts.ids.tolist(), counts.num_output.tolist(), strict=True))


def expected(prompt: list[int], output: list[int]) -> dict[int, int]:
    return dict.fromkeys(prompt, 0) | Counter(output)


@given(ids, ids, ids)
def test_counts_equal_a_recount(prompt: list[int], output: list[int], draft_ids: list[int]) -> None:
    history = TokenHistory(prompt)
    for i, token_id in enumerate(output):
        assert as_dict(history.counts) == expected(prompt, output[:i])
        history.append(token_id)
    assert as_dict(history.counts_after(draft_ids)) == expected(prompt, output + draft_ids)
    assert as_dict(history.counts) == expected(prompt, output), "counts_after appends nothing"


@given(ids, ids, st.integers(0, 70))
def test_the_output_is_kept_in_order(prompt: list[int], output: list[int], start: int) -> None:
    history = TokenHistory(prompt)
    for token_id in output:
        history.append(token_id)
    assert history.num_output == len(output)
    assert list(history.output_since(start)) == output[start:]
