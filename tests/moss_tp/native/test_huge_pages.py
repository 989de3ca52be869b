"""Tensors in huge pages are tensors of zeros, whether or not the system has such pages."""

import gc
import mmap

import psutil
import pytest
import torch

from moss_tp.native.huge_pages import huge_cat, huge_zeros, lazy_zeros

MANY = 5 << 20


@pytest.mark.parametrize("length", [3, MANY])
def test_zeros_of_any_size(length: int) -> None:
    tensor = huge_zeros(2, length, dtype=torch.int16)
    assert tensor.shape == (2, length) and tensor.dtype == torch.int16
    assert not tensor.any()
    tensor[1] = 7
    rows = tensor[1]
    del tensor
    gc.collect()
    assert (rows == 7).all()  # the memory lives with the last view of it


def test_joined_tensors() -> None:
    parts = [torch.arange(MANY // 2).view(-1, 2) for _ in range(2)]
    assert torch.equal(huge_cat(parts), torch.cat(parts))


def test_a_system_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert not huge_zeros(MANY, dtype=torch.int8).any()


def test_lazy_zeros_take_memory_as_they_are_written() -> None:
    before, size = psutil.Process().memory_info().rss, 256 << 20
    zeros = lazy_zeros((size // 4,), torch.float32, torch.device("cpu"))
    assert psutil.Process().memory_info().rss - before < size // 4
    zeros[: size // 8] = 1
    assert psutil.Process().memory_info().rss - before > size // 4
    assert not zeros[size // 8 :].any()
    assert lazy_zeros((0, 3), torch.int8, torch.device("cpu")).shape == (0, 3)
