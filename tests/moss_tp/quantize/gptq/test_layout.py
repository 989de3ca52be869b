"""The published layout, read by numpy alone."""

from typing import Any

import numpy as np
import pytest
import torch

from moss_tp.quantize.gptq.columns import Rounded
from moss_tp.quantize.gptq.layout import dequantized, published_tensors
from tests.moss_tp.quantize.published import read_linear


def case(bits: int) -> Rounded:
    numbers = torch.Generator().manual_seed(4)
    inputs, outputs, groups = 64, 96, 3
    return Rounded(
        levels=torch.randint(0, 2**bits, (inputs, outputs), generator=numbers).byte(),
        scales=torch.rand(groups, outputs, generator=numbers).half(),
        zeros=torch.randint(1, 2**bits, (groups, outputs), generator=numbers).short(),
        groups=torch.randint(0, groups, (inputs,), generator=numbers).int(),
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_numpy_reads_the_same_weight(bits: int) -> None:
    rounded = case(bits)
    tensors: dict[str, Any] = {n: t.numpy() for n, t in published_tensors(rounded, bits).items()}
    assert tensors["qweight"].shape == (64 // 32 * bits, 96)
    assert tensors["qzeros"].shape == (3, 96 // 32 * bits)
    assert {n: str(t.dtype) for n, t in tensors.items()} == {
        "qweight": "int32",
        "qzeros": "int32",
        "scales": "float16",
        "g_idx": "int32",
    }
    weight = dequantized(rounded, bits, torch.float32, None).weight
    np.testing.assert_array_equal(read_linear(tensors, bits), weight.numpy())
