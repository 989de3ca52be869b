"""Sums over gloo in the order that NCCL gets, too: the same bits whatever is summed beside."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from moss_tp.parallel import ordered_sum
from moss_tp.parallel.ordered_sum import OrderedSum, scratch_bytes
from moss_tp.parallel.tp_group import TPGroup
from tests.moss_tp.parallel.gloo_ranks import on_gloo
from tests.moss_tp.parallel.shared_ranks import assert_same_bits, expected_sum

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LENGTHS = (0, 1, 7, 1000, 1025, 2048, 2049, 60_001)
WIDTH, ROWS = 192, (1, 2, 31, 400)


@pytest.fixture(autouse=True)
def small_one_shot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways within small tensors: 1,024 elements of fp32, 2,048 of fp16."""
    monkeypatch.setattr(ordered_sum, "ONE_SHOT_BYTES", 4096)


def part(rank: int, length: int, dtype: torch.dtype) -> Tensor:
    numbers = torch.Generator().manual_seed(rank)
    x: Tensor = torch.randn(length, generator=numbers) * 10 ** (rank % 3)
    return x.to(dtype)


def check_sums(size: int, *, is_reserved: bool = False) -> None:
    def sums(group: TPGroup) -> list[Tensor]:
        results = []
        for dtype in DTYPES:
            if is_reserved:
                group.reserve(max(LENGTHS), dtype)
            results += [group.all_reduce(part(group.rank, n, dtype)) for n in LENGTHS]
        return results

    by_rank = on_gloo(size, sums)
    cases = ((dtype, length) for dtype in DTYPES for length in LENGTHS)
    for index, (dtype, length) in enumerate(cases):
        expected = expected_sum([part(rank, length, dtype) for rank in range(size)])
        for sums_of_rank in by_rank:
            assert_same_bits(sums_of_rank[index], expected)


def backends_own(self: OrderedSum, x: Tensor) -> None:
    self.backend.allreduce([x], dist.AllreduceOptions()).wait()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("is_reserved", [False, True])
def test_sums_are_a_tree_of_ranks_and_rounded_once(size: int, is_reserved: bool) -> None:
    """For one and two ranks the backend's own sum is that, too."""
    check_sums(size, is_reserved=is_reserved)


@pytest.mark.parametrize("size", [3, 4])
def test_the_backends_own_order_is_noticed(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OrderedSum, "__call__", backends_own)
    with pytest.raises(AssertionError):
        check_sums(size)


def check_rows(size: int) -> None:
    """The first row's bits beside any number of other rows."""

    def first_rows(group: TPGroup) -> list[Tensor]:
        x = part(group.rank, ROWS[-1] * WIDTH, torch.bfloat16).view(-1, WIDTH)
        return [group.all_reduce(x[:rows].clone())[0] for rows in ROWS]

    for rows in on_gloo(size, first_rows):
        for row in rows[1:]:
            assert_same_bits(row, rows[0])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_an_elements_bits_do_not_depend_on_the_rows(size: int) -> None:
    check_rows(size)


def test_bits_that_depend_on_the_rows_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OrderedSum, "__call__", backends_own)
    with pytest.raises(AssertionError):
        check_rows(3)


@pytest.mark.parametrize("size", [3, 4])
def test_a_sum_is_in_place_for_any_strides(size: int) -> None:
    def transposed(group: TPGroup) -> list[Tensor]:
        small, large = torch.arange(6.0).view(2, 3).T, torch.arange(6000.0).view(60, 100).T
        return [group.all_reduce(small), group.all_reduce(large)]

    for small, large in on_gloo(size, transposed):
        assert torch.equal(small, size * torch.arange(6.0).view(2, 3).T)
        assert torch.equal(large, size * torch.arange(6000.0).view(60, 100).T)


@pytest.mark.parametrize("size", [3, 4])
def test_scratch_memory_is_enough_for_all_that_is_smaller_and_for_no_more(size: int) -> None:
    limit = 3001

    def sums(group: TPGroup) -> Tensor:
        group.reserve(limit, torch.float16)
        scratch = group._sum._scratch
        assert scratch is not None
        assert scratch.nbytes == scratch_bytes(size, limit, torch.float16)
        scratch.fill_(255)  # NaN in every dtype
        for length in range(1, limit + 1, 100):
            x = group.all_reduce(torch.ones(length, dtype=torch.float16))
            assert (x == size).all()
        with pytest.raises(RuntimeError, match="are kept"):
            group.all_reduce(torch.ones(3 * limit, dtype=torch.float16))
        return x

    on_gloo(size, sums)


def test_scratch_memory_grows_with_the_tensor() -> None:
    sizes = [scratch_bytes(4, count, torch.float16) for count in range(0, 9000, 7)]
    assert sizes == sorted(sizes)
    assert scratch_bytes(2, 10**9, torch.float16) == 0


@pytest.mark.parametrize("size", [2, 3])
def test_other_dtypes_are_summed_by_the_backend(size: int) -> None:
    def sums(group: TPGroup) -> list[int]:
        total: list[int] = group.all_reduce(torch.tensor([group.rank, 2**40])).tolist()
        return total

    assert on_gloo(size, sums) == [[sum(range(size)), size * 2**40]] * size


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("way", ["one_shot", "by_shares"])
def test_each_way_alone(way: str, size: int) -> None:
    """Of any number of ranks, though some never take it by themselves."""

    def sums(group: TPGroup) -> Tensor:
        x = part(group.rank, 1001, torch.bfloat16)
        getattr(group._sum, way)(x)
        return x

    expected = expected_sum([part(rank, 1001, torch.bfloat16) for rank in range(size)])
    for found in on_gloo(size, sums):
        assert_same_bits(found, expected)
