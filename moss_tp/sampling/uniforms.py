"""Stateless random numbers: each is a function of the request's seed and the token's position.

So batching, preemption and the verification of several draft tokens in one step draw the same
numbers on every device. It is SplitMix64 (Steele, Lea, Flood 2014) with random access. The seed
is mixed first, so that neighbouring seeds do not share a stretch of the stream.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """Numbers in [0, 1), `(R,)`, one for each pair of a seed and an output token's position."""
    state = _mix(np.array(seeds, np.uint64) + _GOLDEN)
    state += np.array(positions, np.uint64) * _GOLDEN
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in _MIX:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
