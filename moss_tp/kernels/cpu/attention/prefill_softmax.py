"""Online softmax for prefill: LANES queries at once, one a lane, so lanes are never reduced.

    scores (tokens, queries) fp32        one row a token, `stride` bytes apart

A query sees the tokens below its limit, an int32. A token's weight is exp(score - running max);
where the max rises, earlier sums are rescaled by exp(old max - new max). Addresses are those of
LANES columns in a row.
"""

from typing import Any

from llvmlite import ir
from numba import types

from moss_tp.kernels.cpu.linear.mul_add import PANEL
from moss_tp.native.exp import emit_exp
from moss_tp.native.llvm import FP32_BYTES, I32, I64, i64, intrinsic, loop_range, stack_variable
from moss_tp.native.vectors import (
    LANES,
    VECTOR,
    element_pointer,
    load_vector,
    maximum,
    splat,
    store_vector,
    to_bf16_pairs,
)

ROWS_AT_ONCE = 4  # independent maxima, enough to hide the latency of a comparison

_WORDS = ir.VectorType(I32, LANES)


@intrinsic
def update_running_max(
    context: Any, scores: Any, stride: Any, tokens: Any, limits: Any, maxima: Any, rescales: Any
) -> Any:
    """Updates `maxima` over `tokens`, rounded up to ROWS_AT_ONCE, and writes the factors that
    earlier sums are rescaled by. Returns whether any max has risen."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scores, stride, tokens, limits, maxima, rescales = arguments
        limit, before = load_vector(builder, limits, _WORDS), load_vector(builder, maxima, VECTOR)
        partial = [stack_variable(builder, before) for _ in range(ROWS_AT_ONCE)]
        rounds = builder.udiv(builder.add(tokens, i64(ROWS_AT_ONCE - 1)), i64(ROWS_AT_ONCE))
        with loop_range(builder, rounds) as loop:
            for i, pointer in enumerate(partial):
                token = builder.add(builder.mul(loop.index, i64(ROWS_AT_ONCE)), i64(i))
                score, is_visible = _load_scores(builder, scores, stride, token, limit)
                current = builder.load(pointer)
                is_higher = builder.and_(is_visible, builder.fcmp_ordered(">", score, current))
                builder.store(builder.select(is_higher, score, current), pointer)
        after = builder.load(partial[0])
        for pointer in partial[1:]:
            after = maximum(builder, builder.load(pointer), after)
        store_vector(builder, after, maxima)
        store_vector(builder, emit_exp(builder, builder.fsub(before, after)), rescales)
        has_risen = builder.fcmp_ordered(">", after, before)
        lanes = ir.IntType(LANES)
        any_has = builder.icmp_unsigned("!=", builder.bitcast(has_risen, lanes), lanes(0))
        return builder.zext(any_has, I64)

    return types.int64(*[types.int64] * 6), codegen


@intrinsic
def rescale(context: Any, sums: Any, stride: Any, rows: Any, factors: Any) -> Any:
    """Multiplies `rows` of sums (rows, queries), `stride` bytes apart, by the queries' factors."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, stride, rows, factors = arguments
        factor = load_vector(builder, factors, VECTOR)
        with loop_range(builder, rows) as loop:
            address = builder.add(sums, builder.mul(loop.index, stride))
            scaled = builder.fmul(load_vector(builder, address, VECTOR), factor)
            store_vector(builder, scaled, address)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def make_exp_weights(per_step: int) -> Any:
    """`exp_weights(scores, stride, steps, limits, maxima, totals, weights)`: turns scores into a
    panel of weights, `per_step` tokens a K step (see `mul_add`), and adds them to `totals`."""

    @intrinsic
    def exp_weights(
        context: Any,
        scores: Any,
        stride: Any,
        steps: Any,
        limits: Any,
        maxima: Any,
        totals: Any,
        weights: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_exp_weights(builder, per_step, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return exp_weights


def _emit_exp_weights(
    builder: Any,
    per_step: int,
    scores: Any,
    stride: Any,
    steps: Any,
    limits: Any,
    maxima: Any,
    totals: Any,
    weights: Any,
) -> None:
    limit = load_vector(builder, limits, _WORDS)
    running_max = load_vector(builder, maxima, VECTOR)
    total = stack_variable(builder, load_vector(builder, totals, VECTOR))
    zero = ir.Constant(VECTOR, [0.0] * LANES)
    with loop_range(builder, steps) as loop:
        step = []
        for i in range(per_step):
            token = builder.add(builder.mul(loop.index, i64(per_step)), i64(i))
            score, is_visible = _load_scores(builder, scores, stride, token, limit)
            weight = emit_exp(builder, builder.fsub(score, running_max))
            step.append(builder.select(is_visible, weight, zero))
            builder.store(builder.fadd(builder.load(total), step[-1]), total)
        words = step[0] if per_step == 1 else to_bf16_pairs(builder, *step)
        size = PANEL * FP32_BYTES
        pointer = element_pointer(builder, weights, loop.index, size, words.type)
        builder.store(words, pointer, align=4)
    store_vector(builder, builder.load(total), totals)


def _load_scores(builder: Any, scores: Any, stride: Any, token: Any, limit: Any) -> tuple[Any, Any]:
    """A token's scores, and which of the queries see it."""
    score = load_vector(builder, builder.add(scores, builder.mul(token, stride)), VECTOR)
    number = splat(builder, builder.trunc(token, I32), _WORDS)
    return score, builder.icmp_signed("<", number, limit)
