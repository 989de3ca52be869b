"""Shards of column, row and qkv parallel weights, and the bias of row-parallel ones."""

import pytest
import torch

from moss_tp.layers.parallel_weight import (
    DenseParallelWeight,
    column_parallel,
    qkv_parallel,
    release,
    row_parallel,
)
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.weights.shard import Shard

CPU = torch.device("cpu")


def weight(shard: Shard, group: TPGroup, *, has_bias: bool = False) -> DenseParallelWeight:
    module = DenseParallelWeight(shard, group, torch.float32, has_bias=has_bias)
    for parameter in module.parameters():
        parameter.fill_(1)
    return module


@pytest.mark.parametrize("rank", [0, 1])
def test_column_parallel_splits_outputs_and_bias(rank: int) -> None:
    group = TPGroup(rank, 2, CPU)
    module = weight(column_parallel(6, 8, group), group, has_bias=True)
    dense = module.kernel_weight()
    assert dense.weight.shape == (4, 6)
    assert dense.bias is not None
    assert dense.bias.shape == (4,)
    assert (
        module.shards["weight"].spans == module.shards["bias"].spans == ((4 * rank, 4 * rank + 4),)
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_row_parallel_splits_inputs_and_has_the_whole_bias(rank: int) -> None:
    group = TPGroup(rank, 2, CPU)
    module = weight(row_parallel(6, 8, group), group, has_bias=True)
    dense = module.kernel_weight()
    assert dense.weight.shape == (8, 3)
    assert dense.bias is not None
    assert dense.bias.shape == (8,)


def test_weight_without_bias() -> None:
    group = TPGroup.single("cpu")
    module = weight(row_parallel(6, 8, group), group)
    assert module.kernel_weight().bias is None
    assert module.shards.keys() == {"weight"}


def test_qkv_spans_of_a_rank_that_crosses_a_stored_group() -> None:
    """Hidden size 24: stored are 4 groups of 6 rows each of q, v and k; rank 1 of 3 has heads
    8 to 16, so the end of group 1 and the start of group 2."""
    shard = qkv_parallel(24, TPGroup(1, 3, CPU))
    assert shard.spans == ((20, 24), (36, 40), (32, 36), (48, 52), (26, 30), (42, 46))
    assert shard.local_shape == (24, 24)


def test_release_drops_parameters() -> None:
    group = TPGroup.single("cpu")
    module = weight(column_parallel(2, 2, group), group, has_bias=True)
    release(module)
    assert list(module.parameters()) == []
