"""The embedding of one rank, for ids of any rank."""

import pytest
import torch
from torch import Tensor

from moss_tp.layers.embedding import VocabParallelEmbedding
from moss_tp.parallel.tp_group import TPGroup

VOCAB, HIDDEN = 11, 4


def rows_of(rank: int, size: int, ids: Tensor) -> Tensor:
    """This rank's summand: its all-reduce, without a backend, adds nothing."""
    group = TPGroup(rank, size, torch.device("cpu"))
    embedding = VocabParallelEmbedding(VOCAB, HIDDEN, group, torch.float32)
    (start, stop) = embedding.shards["weight"].spans[0]
    embedding.weight.zero_()
    embedding.weight[: stop - start] = table()[start:stop]
    rows: Tensor = embedding(ids)
    return rows


def table() -> Tensor:
    return torch.arange(VOCAB * HIDDEN, dtype=torch.float32).view(VOCAB, HIDDEN) + 1


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_each_row_comes_from_one_rank_and_is_zero_on_the_others(
    size: int, dtype: torch.dtype
) -> None:
    ids = torch.arange(VOCAB, dtype=dtype).flip(0)
    ranks = torch.stack([rows_of(rank, size, ids) for rank in range(size)])
    assert torch.equal(ranks.sum(0), table().flip(0))
    assert (ranks.any(-1).sum(0) == 1).all()


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_rows_without_a_border_give_the_same_bits(rank: int) -> None:
    class Alone(TPGroup):
        def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
            return x

    group = Alone(rank, 3, torch.device("cpu"))
    layer = VocabParallelEmbedding(20, 4, group, torch.bfloat16)
    layer.weight.data.copy_(torch.randn(7, 4))
    ids = torch.arange(20)
    bordered = layer(ids)
    layer.take_rows(layer.weight.data.clone())
    assert torch.equal(layer(ids).view(torch.int16), bordered.view(torch.int16))
    assert bordered.any()
    with pytest.raises(ValueError, match="embedding rows"):
        layer.take_rows(torch.zeros(6, 4, dtype=torch.bfloat16))
