"""The kernel that waits ends when it is told to, and by itself in the end."""

import pytest
import torch

from moss_tp.kernels.cuda.runtime.spin import spin


@pytest.mark.parametrize(("value", "looks"), [(1, 10**9), (0, 100)])
def test_it_ends(value: int, looks: int) -> None:
    spin(torch.tensor([value], dtype=torch.int32), looks)


def test_what_it_refuses() -> None:
    for wrong in (torch.zeros(1), torch.zeros(2, dtype=torch.int32)):
        with pytest.raises(ValueError, match="flag is"):
            spin(wrong)
