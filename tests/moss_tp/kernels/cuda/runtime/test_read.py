"""The kernel that reads memory reads all of it."""

import pytest
import torch

from moss_tp.kernels.cuda.runtime.read import read_sums
from moss_tp.kernels.cuda.runtime.switch import interpreted


@pytest.mark.parametrize("length", [1, 64, 1000, 4096 + 7])
@pytest.mark.parametrize("loops", [1, 3])
def test_each_element_is_read_once(length: int, loops: int) -> None:
    x = torch.randint(
        -1000, 1000, (length,), dtype=torch.int32
    )  # the interpreter knows no overflow
    expected = read_sums(x, 64, loops)
    with interpreted():
        sums = read_sums(x, 64, loops)
    assert torch.equal(sums, expected)
    assert sums.sum(dtype=torch.int32) == x.sum(dtype=torch.int32)
    x[length - 1] += 1
    assert not torch.equal(sums, read_sums(x, 64, loops))


def test_what_it_refuses() -> None:
    x = torch.zeros(64, dtype=torch.int32)
    for wrong in (x.long(), x.view(8, 8), x[::2]):
        with pytest.raises(ValueError, match="x must be"):
            read_sums(wrong)
    for block, loops in ((0, 1), (48, 1), (64, 0)):
        with pytest.raises(ValueError, match="power of 2"):
            read_sums(x, block, loops)
