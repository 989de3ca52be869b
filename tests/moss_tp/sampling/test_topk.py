"""topk and argmax against torch and numpy, ties included."""

import numpy as np
import pytest
import torch

from moss_tp.sampling.topk import argmax, sorted_values, topk

SIZES = [1, 127, 256, 300, 4096, 5003, 20_011]


def logits(vocab_size: int, num_rows: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(vocab_size)
    wide = torch.randn(num_rows, vocab_size + 5, generator=generator)
    return wide[:, :vocab_size]  # not contiguous, like logits without their padding


@pytest.mark.parametrize("vocab_size", SIZES)
def test_argmax_is_the_lowest_id_among_equals(vocab_size: int) -> None:
    for values in (logits(vocab_size), logits(vocab_size).round(), -logits(vocab_size).abs()):
        assert argmax(values).tolist() == np.argmax(values.numpy(), axis=1).tolist()


@pytest.mark.parametrize("vocab_size", SIZES)
@pytest.mark.parametrize("k", [1, 64, 256])
def test_topk_equals_torch_topk(vocab_size: int, k: int) -> None:
    for values in (logits(vocab_size), logits(vocab_size).round()):
        expected = values.topk(min(k, vocab_size), dim=-1).values
        best, ids = topk(values, k)
        assert torch.equal(best, expected)
        assert torch.equal(values.gather(1, ids), expected)
        assert all(len(set(row)) == len(row) for row in ids.tolist())
        is_equal = best[:, 1:] == best[:, :-1]
        assert not (is_equal & (ids[:, 1:] < ids[:, :-1])).any()


@pytest.mark.parametrize("vocab_size", SIZES)
@pytest.mark.parametrize("k", [1, 64, 256])
def test_the_lowest_ids_of_equals_at_the_cut_are_included(vocab_size: int, k: int) -> None:
    for values in (
        logits(vocab_size).round(),
        logits(vocab_size).mul(4).round(),
        logits(vocab_size).sign(),
    ):
        order = values.sort(dim=-1, descending=True, stable=True).indices
        assert torch.equal(topk(values, k)[1], order[:, :k])


def test_ids_after_the_last_part_are_found() -> None:
    values = torch.zeros(2, 5003)
    values[0, 5002], values[1, 4992] = 1, 1
    assert argmax(values).tolist() == [5002, 4992]
    assert topk(values, 4)[1][:, 0].tolist() == [5002, 4992]


def test_sorted_values_descend() -> None:
    values = logits(300)
    assert torch.equal(sorted_values(values), values.sort(descending=True).values)
