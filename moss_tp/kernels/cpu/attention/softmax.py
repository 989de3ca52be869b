"""Online softmax over CHUNK scores of one query, by vectors.

A token's weight is exp(score - running max). Where the max rises, earlier sums are rescaled by
exp(old max - new max). Weights are summed lane by lane, and their lanes only at the end. Arguments
are addresses, except for `visible`: how many of the tokens are; the others have no weight.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from moss_tp.kernels.cpu.attention.products import CHUNK
from moss_tp.native.exp import emit_exp
from moss_tp.native.llvm import FP32_BYTES, I32, call, i64, intrinsic, loop_range
from moss_tp.native.vectors import (
    LANES,
    VECTOR,
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

Vectors = list[Any]


def make_max_score(has_scales: bool, is_masked: bool) -> Any:
    """`max_score(scores, visible, key_scales)`, with scores times `key_scales` if it has any. If
    it is not masked, all tokens are visible."""

    @intrinsic
    def max_score(context: Any, scores: Any, visible: Any, key_scales: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scores, visible, key_scales = arguments
            loaded = _load_scores(builder, scores, key_scales if has_scales else None)
            if is_masked:
                loaded = _mask(builder, loaded, visible, float(LOWEST))
            return _reduce_lanes(builder, _fold(builder, loaded, maximum), maximum)

        return types.float32(*[types.int64] * 3), codegen

    return max_score


def make_exp_weights(per_step: int, has_scales: bool, is_masked: bool) -> Any:
    """`exp_weights(scores, visible, key_scales, value_scales, running_max, totals, weights)`, which
    adds the weights to `totals` and writes them times `value_scales` if it has any: in fp32, or in
    bf16 where a K step has two."""

    @intrinsic
    def exp_weights(
        context: Any,
        scores: Any,
        visible: Any,
        key_scales: Any,
        value_scales: Any,
        running_max: Any,
        totals: Any,
        out: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scores, visible, key_scales, value_scales, running_max, totals, out = arguments
            loaded = _load_scores(builder, scores, key_scales if has_scales else None)
            greatest = splat(builder, running_max, VECTOR)
            weights = [emit_exp(builder, builder.fsub(score, greatest)) for score in loaded]
            if is_masked:
                weights = _mask(builder, weights, visible, 0.0)
            total = builder.fadd(
                load_vector(builder, totals, VECTOR), _fold(builder, weights, add_lanes)
            )
            store_vector(builder, total, totals)
            if has_scales:
                weights = _multiply(builder, weights, value_scales)
            if has_scales and is_masked:
                weights = _mask(builder, weights, visible, 0.0)  # a hidden scale may be NaN
            _store_weights(builder, weights, out, per_step)
            return context.get_dummy_value()

        argument_types = [types.int64] * 4, types.float32, [types.int64] * 2
        return types.void(*argument_types[0], argument_types[1], *argument_types[2]), codegen

    return exp_weights


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
        return _reduce_lanes(builder, load_vector(builder, arguments[0], VECTOR), add_lanes)

    return types.float32(types.int64), codegen


def add_lanes(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b)


def _load_scores(builder: Any, scores: Any, key_scales: Any | None) -> Vectors:
    addresses = [builder.add(scores, i64(i * FP32_BYTES)) for i in range(0, CHUNK, LANES)]
    loaded = [load_vector(builder, address, VECTOR) for address in addresses]
    return loaded if key_scales is None else _multiply(builder, loaded, key_scales)


def _multiply(builder: Any, vectors: Vectors, factors: Any) -> Vectors:
    products = []
    for i, vector in enumerate(vectors):
        address = builder.add(factors, i64(i * _VECTOR_BYTES))
        products.append(builder.fmul(vector, load_vector(builder, address, VECTOR)))
    return products


def _mask(builder: Any, vectors: Vectors, visible: Any, hidden: float) -> Vectors:
    """Replaces what belongs to tokens that are not visible."""
    limit = splat(builder, builder.trunc(visible, I32), _WORDS)
    replacement, masked = ir.Constant(VECTOR, [hidden] * LANES), []
    for i, vector in enumerate(vectors):
        tokens = ir.Constant(_WORDS, list(range(i * LANES, (i + 1) * LANES)))
        is_visible = builder.icmp_signed("<", tokens, limit)
        masked.append(builder.select(is_visible, vector, replacement))
    return masked


def _store_weights(builder: Any, weights: Vectors, out: Any, per_step: int) -> None:
    if per_step == 2:
        pairs = zip(weights[::2], weights[1::2], strict=True)
        weights = [to_bf16(builder, low, high) for low, high in pairs]
    for i, vector in enumerate(weights):
        store_vector(builder, vector, builder.add(out, i64(i * _VECTOR_BYTES)))


def _fold(builder: Any, vectors: Vectors, combine: Callable[[Any, Any, Any], Any]) -> Any:
    """Combines vectors pairwise."""
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [combine(builder, low, high) for low, high in pairs]
    return vectors[0]


def _reduce_lanes(builder: Any, vector: Any, combine: Callable[[Any, Any, Any], Any]) -> Any:
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
