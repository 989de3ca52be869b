"""The published layout of a quantized linear: 4 or 8 bits in words of 32, lowest first.

    qweight (inputs / 32 * bits, outputs)   along inputs        scales (groups, outputs) fp16
    qzeros  (groups, outputs / 32 * bits)   along outputs       g_idx  (inputs,) int32

qzeros holds each zero point less 1.
"""

import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.quantized import QuantizedWeight
from moss_tp.kernels.words import pack
from moss_tp.quantize.gptq.columns import Rounded

_PIECE = 4096  # inputs whose values are in fp32 at once


def published_tensors(rounded: Rounded, bits: int) -> dict[str, Tensor]:
    """By their names behind the linear's."""
    return {
        "qweight": pack(rounded.levels, bits),
        "qzeros": pack((rounded.zeros - 1).T, bits).T.contiguous(),
        "scales": rounded.scales,
        "g_idx": rounded.groups,
    }


def dequantized(
    rounded: Rounded, bits: int, dtype: torch.dtype, bias: Tensor | None
) -> DenseWeight:
    """What an engine multiplies by that has loaded it."""
    inputs, outputs = rounded.levels.shape
    weight = torch.empty(outputs, inputs, dtype=dtype, device=rounded.levels.device)
    for start in range(0, inputs, _PIECE):
        levels = pack(rounded.levels[start : start + _PIECE], bits)
        groups = rounded.groups[start : start + _PIECE]
        part = QuantizedWeight(levels, rounded.scales, rounded.zeros, groups, bits, dtype)
        weight[:, start : start + _PIECE] = part.dense().weight
    return DenseWeight(weight, bias)
