"""Softmax of LANES queries at once, each in a lane of its own, so that nothing is ever folded.

    scores (tokens, queries) fp32        one row a token, `stride` bytes apart

A query sees the tokens below its limit, an int32. A token weighs exp(score - peak), where peak is
the highest score that its query has met so far; what was summed before a peak rose shrinks by
exp(old peak - new peak). Addresses are of a row's LANES columns.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from moss_tp.kernels.cpu.products import PANEL
from moss_tp.kernels.cpu.vectors import LANES, VECTOR, greater, pair_up, pointer_to, splat, variable
from moss_tp.native.simd import FP32_BYTES, I32, I64, emit_exp, i64, intrinsic

AT_ONCE = 4  # tokens: so many comparisons do not wait for each other

_cgutils: Any = cgutils  # untyped
_WORDS = ir.VectorType(I32, LANES)


@intrinsic
def raise_peaks(
    context: Any, scores: Any, stride: Any, tokens: Any, limits: Any, peaks: Any, shrinks: Any
) -> Any:
    """Over `tokens`, and as many more rows as make AT_ONCE; writes `peaks`, and to `shrinks` what
    sums shrink by. Whether any do."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scores, stride, tokens, limits, peaks, shrinks = arguments
        limit, before = _load(builder, limits, _WORDS), _load(builder, peaks, VECTOR)
        found = [variable(builder, before) for _ in range(AT_ONCE)]
        rounds = builder.udiv(builder.add(tokens, i64(AT_ONCE - 1)), i64(AT_ONCE))
        with _cgutils.for_range(builder, rounds) as loop:
            for i, peak in enumerate(found):
                token = builder.add(builder.mul(loop.index, i64(AT_ONCE)), i64(i))
                score, is_seen = _score(builder, scores, stride, token, limit)
                highest = builder.load(peak)
                is_higher = builder.and_(is_seen, builder.fcmp_ordered(">", score, highest))
                builder.store(builder.select(is_higher, score, highest), peak)
        after = builder.load(found[0])
        for peak in found[1:]:
            after = greater(builder, builder.load(peak), after)
        _store(builder, after, peaks)
        _store(builder, emit_exp(builder, builder.fsub(before, after)), shrinks)
        has_risen = builder.fcmp_ordered(">", after, before)
        lanes = ir.IntType(LANES)
        any_has = builder.icmp_unsigned("!=", builder.bitcast(has_risen, lanes), lanes(0))
        return builder.zext(any_has, I64)

    return types.int64(*[types.int64] * 6), codegen


@intrinsic
def shrink(context: Any, sums: Any, stride: Any, rows: Any, shrinks: Any) -> Any:
    """`rows` of sums (rows, queries), rows `stride` bytes apart."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, stride, rows, shrinks = arguments
        factor = _load(builder, shrinks, VECTOR)
        with _cgutils.for_range(builder, rows) as loop:
            place = builder.add(sums, builder.mul(loop.index, stride))
            _store(builder, builder.fmul(_load(builder, place, VECTOR), factor), place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def make_weigh(per_step: int) -> Any:
    """`weigh(scores, stride, steps, limits, peaks, totals, weights)`: scores become a panel's
    weights, `per_step` tokens a step, see `products`; what they sum up to is added to `totals`."""

    @intrinsic
    def weigh(
        context: Any,
        scores: Any,
        stride: Any,
        steps: Any,
        limits: Any,
        peaks: Any,
        totals: Any,
        weights: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scores, stride, steps, limits, peaks, totals, weights = arguments
            limit, peak = _load(builder, limits, _WORDS), _load(builder, peaks, VECTOR)
            total = variable(builder, _load(builder, totals, VECTOR))
            zero = ir.Constant(VECTOR, [0.0] * LANES)
            with _cgutils.for_range(builder, steps) as loop:
                step = []
                for i in range(per_step):
                    token = builder.add(builder.mul(loop.index, i64(per_step)), i64(i))
                    score, is_seen = _score(builder, scores, stride, token, limit)
                    weight = emit_exp(builder, builder.fsub(score, peak))
                    step.append(builder.select(is_seen, weight, zero))
                    builder.store(builder.fadd(builder.load(total), step[-1]), total)
                words = step[0] if per_step == 1 else pair_up(builder, *step)
                size = PANEL * FP32_BYTES
                builder.store(
                    words, pointer_to(builder, weights, loop.index, size, words.type), align=4
                )
            _store(builder, builder.load(total), totals)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return weigh


def _score(builder: Any, scores: Any, stride: Any, token: Any, limit: Any) -> tuple[Any, Any]:
    """A token's scores, and which of the queries see it."""
    score = _load(builder, builder.add(scores, builder.mul(token, stride)), VECTOR)
    number = splat(builder, builder.trunc(token, I32), _WORDS)
    return score, builder.icmp_signed("<", number, limit)


def _load(builder: Any, place: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(place, kind.as_pointer()), align=4)


def _store(builder: Any, value: Any, place: Any) -> None:
    builder.store(value, builder.inttoptr(place, value.type.as_pointer()), align=4)
