"""An independent reading of the published layout, by its definition, in numpy.

w = scales[g] * (q - (zero + 1))        g = g_idx[row]
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def read_linear(tensors: Mapping[str, Any], bits: int) -> Floats:
    """The weight `(outputs, inputs)` of one linear's `qweight`, `qzeros`, `scales`, `g_idx`."""
    levels = _unpacked(tensors["qweight"].T, bits).T  # packed along inputs
    zeros = _unpacked(tensors["qzeros"], bits) + 1
    groups = tensors["g_idx"]
    scales = tensors["scales"].astype(np.float32)
    weight: Floats = scales[groups] * (levels - zeros[groups]).astype(np.float32)
    return weight.T


def _unpacked(words: npt.NDArray[np.int32], bits: int) -> npt.NDArray[np.int64]:
    """`(n, w)` words as `(n, w * 32 / bits)` values, the lowest bits first."""
    unsigned = words.astype(np.int64) & 0xFFFFFFFF
    places = np.arange(32 // bits) * bits
    spread = unsigned[:, :, None] >> places & (1 << bits) - 1
    return spread.reshape(len(words), -1)
