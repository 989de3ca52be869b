"""Online softmax for decode: the scores of one query, by vectors.

The scores are fp32, a multiple of LANES; LOWEST pads them and gets the weight 0.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from moss_tp.native.compiled import inner
from moss_tp.native.exp import emit_exp, exp
from moss_tp.native.llvm import FP32_BYTES, I32, intrinsic, loop_range, stack_variable
from moss_tp.native.vectors import LANES, VECTOR, element_pointer, maximum, splat

LOWEST = np.float32(-1e30)  # below any score


@inner
def update_softmax(weights: Any, state: Any, sums: Any) -> None:
    """Turns an array of scores into weights `exp(score - running max)`, in place. `state` holds
    the running max and the weights' running sum; where the max rises, that sum and the weighted
    `sums` of values are rescaled."""
    vectors = len(weights) // LANES
    block_max = max_score(weights.ctypes.data, vectors)
    if block_max > state[0]:
        rescale = exp(state[0] - block_max)
        state[0] = block_max
        state[1] *= rescale
        for i in range(len(sums)):
            sums[i] *= rescale
    state[1] += exp_and_sum(weights.ctypes.data, vectors, state[0])


@intrinsic
def max_score(context: Any, scores: Any, vectors: Any) -> Any:
    """The greatest of `vectors` times LANES scores from an address on."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scores, vectors = arguments
        greatest = stack_variable(builder, ir.Constant(VECTOR, [float(LOWEST)] * LANES))
        with loop_range(builder, vectors) as loop:
            loaded = builder.load(_vector_at(builder, scores, loop.index), align=4)
            builder.store(maximum(builder, loaded, builder.load(greatest)), greatest)
        return reduce_lanes(builder, builder.load(greatest), maximum)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def exp_and_sum(context: Any, scores: Any, vectors: Any, running_max: Any) -> Any:
    """Replaces scores by exp(score - running_max), and LOWEST by 0; returns the sum."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scores, vectors, running_max = arguments
        zero, lowest = (ir.Constant(VECTOR, [value] * LANES) for value in (0.0, float(LOWEST)))
        total = stack_variable(builder, zero)
        offset = splat(builder, running_max, VECTOR)
        with loop_range(builder, vectors) as loop:
            pointer = _vector_at(builder, scores, loop.index)
            loaded = builder.load(pointer, align=4)
            weights = emit_exp(builder, builder.fsub(loaded, offset))
            weights = builder.select(builder.fcmp_ordered(">", loaded, lowest), weights, zero)
            builder.store(weights, pointer, align=4)
            builder.store(builder.fadd(builder.load(total), weights), total)
        return reduce_lanes(builder, builder.load(total), add_lanes)

    return types.float32(types.int64, types.int64, types.float32), codegen


def reduce_lanes(builder: Any, vector: Any, combine: Callable[[Any, Any, Any], Any]) -> Any:
    """Combines all lanes pairwise, always in the same order."""
    width = LANES
    while width > 1:
        width //= 2
        undefined = ir.Constant(vector.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(
                vector,
                undefined,
                ir.Constant(ir.VectorType(I32, width), list(range(start, start + width))),
            )
            for start in (0, width)
        )
        vector = combine(builder, low, high)
    return builder.extract_element(vector, ir.Constant(I32, 0))


def add_lanes(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b)


def _vector_at(builder: Any, scores: Any, index: Any) -> Any:
    return element_pointer(builder, scores, index, LANES * FP32_BYTES, VECTOR)
