"""Online softmax over CHUNK scores of one query, by vectors.

A token's weight is exp(score - running max). Where the max rises, earlier sums are rescaled by
exp(old max - new max). Weights are summed lane by lane, and their lanes only at the end.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from moss_tp.kernels.cpu.attention.products import CHUNK
from moss_tp.native.exp import emit_exp
from moss_tp.native.llvm import F32, FP32_BYTES, I32, call, i64, intrinsic, loop_range
from moss_tp.native.vectors import (
    LANES,
    VECTOR,
    element_pointer,
    load_vector,
    maximum,
    splat,
    store_vector,
    to_bf16,
)

LOWEST = np.float32(-1e30)  # below any score

_WORDS = ir.VectorType(I32, LANES)
_VECTOR_BYTES = LANES * FP32_BYTES
_SMALLEST = float(np.finfo(np.float32).tiny)


def make_softmax(per_step: int, has_scales: bool) -> Any:
    """`softmax(scores, visible, key_scales, value_scales, running_max, totals, weights)`, whose
    arguments are addresses, except for how many of the tokens are visible; the others get the
    weight 0. Returns the factor by which earlier sums are to be rescaled.

    `key_scales` are multiplied into the scores and `value_scales` into the weights, if there are
    any. Weights are fp32, or bf16 where a K step has two.
    """

    @intrinsic
    def softmax(
        context: Any,
        scores: Any,
        visible: Any,
        key_scales: Any,
        value_scales: Any,
        running_max: Any,
        totals: Any,
        weights: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scores, visible, key_scales, value_scales, running_max, totals, out = arguments
            loaded, masks = _load_scores(builder, scores, visible)
            if has_scales:
                loaded = _multiply(builder, loaded, key_scales)
            lowest = ir.Constant(VECTOR, [float(LOWEST)] * LANES)
            masked = [builder.select(m, s, lowest) for m, s in zip(masks, loaded, strict=True)]
            greatest = reduce_lanes(builder, _fold(builder, maximum, masked), maximum)
            before = element_pointer(builder, running_max, i64(0), FP32_BYTES, F32)
            old = builder.load(before)
            new = maximum(builder, greatest, old)
            builder.store(new, before)
            rescale = emit_exp(builder, builder.fsub(old, new))
            weights = _weights(builder, masked, masks, splat(builder, new, VECTOR))
            total = builder.fmul(
                load_vector(builder, totals, VECTOR), splat(builder, rescale, VECTOR)
            )
            store_vector(builder, builder.fadd(total, _fold(builder, add_lanes, weights)), totals)
            if has_scales:
                weights = _multiply(builder, weights, value_scales)
                # A masked token's scale may be anything.
                zero = ir.Constant(VECTOR, [0.0] * LANES)
                weights = [builder.select(m, w, zero) for m, w in zip(masks, weights, strict=True)]
            _store_weights(builder, weights, out, per_step)
            return rescale

        return types.float32(*[types.int64] * 7), codegen

    return softmax


@intrinsic
def rescale_sums(context: Any, sums: Any, vectors: Any, factor: Any) -> Any:
    """Multiplies vectors in place. What would be denormal becomes 0: dot products flush it too,
    but only where a further token is added."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, vectors, factor = arguments
        factors = splat(builder, factor, VECTOR)
        zero, smallest = (ir.Constant(VECTOR, [value] * LANES) for value in (0.0, _SMALLEST))
        with loop_range(builder, vectors) as loop:
            address = builder.add(sums, builder.mul(loop.index, i64(_VECTOR_BYTES)))
            scaled = builder.fmul(load_vector(builder, address, VECTOR), factors)
            size = call(builder, f"llvm.fabs.v{LANES}f32", VECTOR, [scaled])
            is_denormal = builder.fcmp_ordered("<", size, smallest)
            store_vector(builder, builder.select(is_denormal, zero, scaled), address)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), codegen


@intrinsic
def sum_of_lanes(context: Any, totals: Any) -> Any:
    """The sum of the vector at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return reduce_lanes(builder, load_vector(builder, arguments[0], VECTOR), add_lanes)

    return types.float32(types.int64), codegen


def _load_scores(builder: Any, scores: Any, visible: Any) -> tuple[list[Any], list[Any]]:
    """The vectors of scores, and which of their tokens are visible."""
    limit = splat(builder, builder.trunc(visible, I32), _WORDS)
    loaded, masks = [], []
    for first in range(0, CHUNK, LANES):
        loaded.append(load_vector(builder, builder.add(scores, i64(first * FP32_BYTES)), VECTOR))
        tokens = ir.Constant(_WORDS, list(range(first, first + LANES)))
        masks.append(builder.icmp_signed("<", tokens, limit))
    return loaded, masks


def _multiply(builder: Any, vectors: list[Any], factors: Any) -> list[Any]:
    products = []
    for i, vector in enumerate(vectors):
        address = builder.add(factors, i64(i * _VECTOR_BYTES))
        products.append(builder.fmul(vector, load_vector(builder, address, VECTOR)))
    return products


def _weights(builder: Any, scores: list[Any], masks: list[Any], greatest: Any) -> list[Any]:
    zero = ir.Constant(VECTOR, [0.0] * LANES)
    weights = []
    for score, mask in zip(scores, masks, strict=True):
        weight = emit_exp(builder, builder.fsub(score, greatest))
        weights.append(builder.select(mask, weight, zero))
    return weights


def _store_weights(builder: Any, weights: list[Any], out: Any, per_step: int) -> None:
    if per_step == 2:
        pairs = zip(weights[::2], weights[1::2], strict=True)
        weights = [to_bf16(builder, low, high) for low, high in pairs]
    for i, vector in enumerate(weights):
        store_vector(builder, vector, builder.add(out, i64(i * _VECTOR_BYTES)))


def _fold(builder: Any, combine: Callable[[Any, Any, Any], Any], vectors: list[Any]) -> Any:
    """Combines vectors pairwise."""
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [combine(builder, low, high) for low, high in pairs]
    return vectors[0]


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
