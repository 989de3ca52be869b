"""The two products of attention, for a few queries of one head and CHUNK tokens.

    scores (queries, CHUNK)  = q (queries, D)              @ keys (D, CHUNK)
    sums   (queries, D)     += weights (queries, CHUNK)    @ values (CHUNK, D)

Rows of q and of weights are words of 4 bytes, one K step each; keys and values are vectors of PANEL
columns, wherever in memory each PANEL tokens lie. Every sum takes its K steps in order, one after
the other, whatever the shape: so a query's result does not depend on those beside it. Emitted as
LLVM, since Numba cannot keep an array in registers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from moss_tp.kernels.cpu.attention.panel_loads import load_panel, panel_bytes
from moss_tp.kernels.cpu.microkernel.mul_add import PANEL, X_STEP_BYTES, VectorMulAdd
from moss_tp.native.compiled import exact_inlined
from moss_tp.native.llvm import (
    FP32_BYTES,
    I64,
    INT_BYTES,
    i64,
    intrinsic,
    loop_range,
    stack_variable,
)
from moss_tp.native.memory import emit_prefetch
from moss_tp.native.vectors import element_pointer, load_vector, store_vector

CHUNK = 64  # tokens; chunks begin at its multiples
PANELS = CHUNK // PANEL
UNROLL = 4
PREFETCH_QUERIES = 2  # products of at most so many also prefetch what follows


class Shape(NamedTuple):
    """Queries and panels whose sums fit into the registers, and the dtype of the panels."""

    queries: int
    panels: int
    dtype: int

    @property
    def key(self) -> int:
        return _shape_key(*self)


def _shape_key(queries: int, panels: int, dtype: int) -> int:
    return (dtype * 100 + queries) * 100 + panels


shape_key = exact_inlined(_shape_key)


class _Steps(NamedTuple):
    """Where some K steps begin, as LLVM values: addresses, and bytes from one step to the next."""

    x: Sequence[Any]  # of each query
    w: Sequence[Any]  # of each panel
    ahead: Sequence[Any]  # to prefetch, of each panel
    w_step: Any


def shapes_of(panels: Sequence[int], dtype: int) -> list[Shape]:
    """All powers of two of panels, up to the most that each number of queries may have."""
    return [
        Shape(queries, 1 << exponent, dtype)
        for queries, most in enumerate(panels)
        for exponent in range(most.bit_length())
    ]


def make_score(mul_add: VectorMulAdd, shapes: Sequence[Shape]) -> Any:
    """`score(key, q, q_stride, keys, ahead, steps, scores)`: `keys` and `ahead` are arrays of the
    panels' addresses, those to read and those to prefetch; rows of scores are CHUNK apart."""

    @intrinsic
    def score(
        context: Any,
        key: Any,
        q: Any,
        q_stride: Any,
        keys: Any,
        ahead: Any,
        steps: Any,
        scores: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            key, q, q_stride, keys, ahead, steps, scores = arguments

            def emit(shape: Shape) -> None:
                sums = _Sums(builder, mul_add, shape, scores, i64(CHUNK * FP32_BYTES))
                sums.clear()
                step_bytes = i64(panel_bytes(mul_add, shape.dtype))
                tables = [
                    [_load_address(builder, table, i64(i)) for i in range(shape.panels)]
                    for table in (keys, ahead)
                ]

                def find(step: Any) -> _Steps:
                    x = builder.add(q, builder.mul(step, i64(X_STEP_BYTES)))
                    offset = builder.mul(step, step_bytes)
                    w, prefetched = ([builder.add(a, offset) for a in table] for table in tables)
                    rows = _strided(builder, x, q_stride, shape.queries)
                    return _Steps(rows, w, prefetched, step_bytes)

                sums.add(steps, find)
                sums.store()

            _emit_switch(builder, key, shapes, emit)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return score


def make_accumulate(mul_add: VectorMulAdd, shapes: Sequence[Shape]) -> Any:
    """`accumulate(key, weights, values, ahead, column, step_bytes, steps, sums, stride)`: `values`
    and `ahead` are arrays of addresses, one for PANEL tokens; their columns begin
    `column` bytes on."""
    run = PANEL // mul_add.x_per_step  # K steps of PANEL tokens

    @intrinsic
    def accumulate(
        context: Any,
        key: Any,
        weights: Any,
        values: Any,
        ahead: Any,
        column: Any,
        step_bytes: Any,
        steps: Any,
        sums: Any,
        stride: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            key, weights, values, ahead, column, step_bytes, steps, out, stride = arguments
            weight_stride = i64(CHUNK // mul_add.x_per_step * X_STEP_BYTES)

            def emit(shape: Shape) -> None:
                sums = _Sums(builder, mul_add, shape, out, stride)
                sums.load()
                panel_stride = i64(panel_bytes(mul_add, shape.dtype))

                def find(step: Any) -> _Steps:
                    x = builder.add(weights, builder.mul(step, i64(X_STEP_BYTES)))
                    number, rest = builder.udiv(step, i64(run)), builder.urem(step, i64(run))
                    offset = builder.add(column, builder.mul(rest, step_bytes))
                    w, prefetched = (
                        builder.add(_load_address(builder, table, number), offset)
                        for table in (values, ahead)
                    )
                    return _Steps(
                        _strided(builder, x, weight_stride, shape.queries),
                        _strided(builder, w, panel_stride, shape.panels),
                        _strided(builder, prefetched, panel_stride, shape.panels),
                        step_bytes,
                    )

                sums.add(steps, find)
                sums.store()

            _emit_switch(builder, key, shapes, emit)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return accumulate


class _Sums:
    """The sums of one shape, in registers."""

    def __init__(
        self, builder: Any, mul_add: VectorMulAdd, shape: Shape, out: Any, stride: Any
    ) -> None:
        self._builder, self._mul_add, self._shape = builder, mul_add, shape
        vector = mul_add.vector
        self._zero = ir.Constant(vector, [0.0] * vector.count)
        count = shape.panels * PANEL // vector.count
        self._sums = [
            [stack_variable(builder, self._zero) for _ in range(count)]
            for _ in range(shape.queries)
        ]
        self._out = [
            [builder.add(row, i64(i * vector.count * FP32_BYTES)) for i in range(count)]
            for row in _strided(builder, out, stride, shape.queries)
        ]

    def clear(self) -> None:
        self._write(lambda _: self._zero)

    def load(self) -> None:
        self._write(lambda address: load_vector(self._builder, address, self._zero.type))

    def _write(self, value_of: Callable[[Any], Any]) -> None:
        for sums, addresses in zip(self._sums, self._out, strict=True):
            for total, address in zip(sums, addresses, strict=True):
                self._builder.store(value_of(address), total)

    def store(self) -> None:
        for sums, addresses in zip(self._sums, self._out, strict=True):
            for total, address in zip(sums, addresses, strict=True):
                store_vector(self._builder, self._builder.load(total), address)

    def add(self, steps: Any, find: Callable[[Any], _Steps]) -> None:
        """Adds `steps` K steps, in order. `find` is asked for every UNROLL steps, then for each of
        those that are left."""
        builder = self._builder
        rounds, rest = (f(steps, i64(UNROLL)) for f in (builder.udiv, builder.urem))
        with loop_range(builder, rounds) as loop:
            where = find(builder.mul(loop.index, i64(UNROLL)))
            for i in range(UNROLL):
                self._add_step(where, i)
        done = builder.mul(rounds, i64(UNROLL))
        with loop_range(builder, rest) as loop:
            self._add_step(find(builder.add(done, loop.index)), 0)

    def _add_step(self, where: _Steps, number: int) -> None:
        builder, mul_add = self._builder, self._mul_add
        x_offset, w_offset = i64(number * X_STEP_BYTES), builder.mul(where.w_step, i64(number))
        weights = [
            vector
            for w in where.w
            for vector in load_panel(builder, mul_add, builder.add(w, w_offset), self._shape.dtype)
        ]
        if self._shape.queries <= PREFETCH_QUERIES:
            for address in where.ahead:
                emit_prefetch(builder, builder.add(address, w_offset))
        for x, sums in zip(where.x, self._sums, strict=True):
            value = mul_add.load_x(builder, builder.add(x, x_offset))
            for vector, total in zip(weights, sums, strict=True):
                after = mul_add.mul_add(builder, value, vector, builder.load(total))
                builder.store(after, total)


def _emit_switch(
    builder: Any, key: Any, shapes: Sequence[Shape], emit: Callable[[Shape], None]
) -> None:
    end = builder.append_basic_block("end")
    switch = builder.switch(key, end)
    for shape in shapes:
        block = builder.append_basic_block(f"shape_{shape.queries}_{shape.panels}")
        switch.add_case(i64(shape.key), block)
        builder.position_at_end(block)
        emit(shape)
        builder.branch(end)
    builder.position_at_end(end)


def _load_address(builder: Any, table: Any, index: Any) -> Any:
    return builder.load(element_pointer(builder, table, index, INT_BYTES, I64))


def _strided(builder: Any, base: Any, stride: Any, count: int) -> list[Any]:
    return [builder.add(base, builder.mul(stride, i64(i))) for i in range(count)]
