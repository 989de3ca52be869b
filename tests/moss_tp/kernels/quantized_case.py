"""Quantized weights for tests."""

import torch

from moss_tp.kernels.quantized import QuantizedWeight


def quantized_case(
    bits: int, inputs: int, outputs: int, num_groups: int, seed: int
) -> QuantizedWeight:
    """Random levels, scales, zeros and groups, in no order."""
    numbers = torch.Generator().manual_seed(seed)
    words = inputs * bits // 32
    return QuantizedWeight(
        packed=torch.randint(-(2**31), 2**31, (words, outputs), generator=numbers).int(),
        scales=torch.rand(num_groups, outputs, generator=numbers).half(),
        zeros=torch.randint(1, 2**bits + 1, (num_groups, outputs), generator=numbers).short(),
        groups=torch.randint(0, num_groups, (inputs,), generator=numbers).int(),
        bits=bits,
        dtype=torch.float32,
        bias=torch.rand(outputs, generator=numbers),
    )
