"""The innermost loop of a product with a quantized weight: a few rows of x times some panels.

    for each run of inputs that share their scales:
        sum = x (rows, run) @ levels (run, panels * 16)         in registers
        c  += scales * sum  (+ scales * (middle - zeros) * the row's sum of x over the run)

Every sum takes its K steps in order, and every c its runs, whatever the tile and wherever the
levels come from: so a row's result does not depend on the rows beside it. Emitted as LLVM, since
Numba cannot keep an array in registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from moss_tp.kernels.cpu.linear.levels import Levels, unit_steps
from moss_tp.kernels.cpu.microkernel.mul_add import GROUP, GROUP_PANELS, PANEL, X_STEP_BYTES
from moss_tp.kernels.cpu.microkernel.tile import TileShape, emit_switch
from moss_tp.native.llvm import (
    F32,
    FP32_BYTES,
    I8,
    I16,
    I32,
    I64,
    INT_BYTES,
    i64,
    intrinsic,
    loop_range,
    stack_variable,
)
from moss_tp.native.memory import emit_prefetch
from moss_tp.native.vectors import (
    CACHE_LINE,
    element_pointer,
    fma,
    load_vector,
    splat,
    store_vector,
)

_HALF = ir.HalfType()
SCALE_BYTES = 2
_RUNS_AHEAD = 4  # whose scales are prefetched
ZEROS_OFFSET = GROUP * SCALE_BYTES  # in a run's scales


class QuantizedTileOperands(NamedTuple):
    """Arguments of a tile, as LLVM values: addresses, and strides in bytes."""

    x: Any
    x_stride: Any
    w: Any  # the first unit of the first panel; a unit's panels lie side by side
    starts: Any  # int64: where each run starts, in units, and where the last one ends
    num_runs: Any
    scales: Any  # of the first run and the task's first panel
    scales_stride: Any  # from run to run
    panel: Any  # the number of the first panel in the task
    c: Any  # rows of GROUP fp32, from the first panel on
    x_sums: Any  # fp32: each row's sum of x over each run; 0 where all zeros are the middle
    x_sums_stride: Any


def make_quantized_tile(
    levels: Levels,
    zero_bytes: int,
    prefetch: int,
    shapes: Mapping[int, TileShape],
    kind: "type[TileEmitter] | None" = None,
) -> Any:
    """`tile(shape, …)`: a key of `shapes`, then the fields of QuantizedTileOperands; it adds to c.
    Zeros, stored as `middle - zero`, take `zero_bytes` each; levels are prefetched `prefetch`
    bytes ahead. `kind` is TileEmitter by default."""
    emitter = kind or TileEmitter

    @intrinsic
    def tile(
        context: Any,
        shape: Any,
        x: Any,
        x_stride: Any,
        w: Any,
        starts: Any,
        num_runs: Any,
        scales: Any,
        scales_stride: Any,
        panel: Any,
        c: Any,
        x_sums: Any,
        x_sums_stride: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            key, *rest = arguments
            operands = QuantizedTileOperands(*rest)

            def emit(shape: TileShape) -> None:
                emitter(builder, levels, zero_bytes, prefetch, shape, operands).emit()

            emit_switch(builder, key, shapes, emit)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), codegen

    return tile


@dataclass(frozen=True)
class TileEmitter:
    """Emits the instructions of a tile of one shape."""

    builder: Any
    levels: Levels
    zero_bytes: int
    prefetch: int
    shape: TileShape
    operands: QuantizedTileOperands

    def emit(self) -> None:
        """Loops over runs; in each, over its units."""
        builder, op = self.builder, self.operands
        w, x = stack_variable(builder, op.w), stack_variable(builder, op.x)
        sums = [stack_variable(builder, self._zero) for _ in range(self._num_sums)]
        with loop_range(builder, op.num_runs) as run:
            for total in sums:
                builder.store(self._zero, total)
            start, end = (
                self._load_int(builder.add(run.index, i64(offset))) for offset in range(2)
            )
            self._add_units(builder.sub(end, start), w, x, sums)
            self._finish_run(run.index, [builder.load(total) for total in sums])

    def _add_units(self, count: Any, w: Any, x: Any, sums: list[Any]) -> None:
        """Of a run. `w` and `x` are variables, which it advances."""
        with loop_range(self.builder, count):
            self._add_unit(self.builder.load(w), self.builder.load(x), sums)
            self._advance(w, x)

    def _advance(self, w: Any, x: Any) -> None:
        """By a unit."""
        _advance(self.builder, w, GROUP_PANELS * self.levels.unit_bytes)
        _advance(self.builder, x, unit_steps(self.levels.mul_add) * X_STEP_BYTES)

    @property
    def _vector(self) -> Any:
        return self.levels.mul_add.vector

    @property
    def _zero(self) -> Any:
        return ir.Constant(self._vector, [0.0] * self._vector.count)

    @property
    def _width(self) -> int:
        """Vectors of a row's sums."""
        return self.shape.panels * PANEL // int(self._vector.count)

    @property
    def _num_sums(self) -> int:
        return self.shape.rows * self._width

    def _load_int(self, index: Any) -> Any:
        pointer = element_pointer(self.builder, self.operands.starts, index, INT_BYTES, I64)
        return self.builder.load(pointer)

    def _add_unit(self, w: Any, x: Any, sums: list[Any]) -> None:
        builder, levels = self.builder, self.levels
        panels = self._load_units(w)
        for number in range(unit_steps(levels.mul_add)):
            weights = [v for panel in panels for v in levels.step(builder, panel, number)]
            for row in range(self.shape.rows):
                value = levels.mul_add.load_x(builder, self._x_address(x, row, number))
                for weight, total in zip(weights, self._row(sums, row), strict=True):
                    after = levels.mul_add.mul_add(builder, value, weight, builder.load(total))
                    builder.store(after, total)

    def _load_units(self, w: Any) -> list[Any]:
        """Of each panel; prefetches later ones."""
        builder, size = self.builder, self.levels.unit_bytes
        self._prefetch(builder.add(w, i64(self.prefetch)), self.shape.panels * size)
        places = (builder.add(w, i64(panel * size)) for panel in range(self.shape.panels))
        return [self.levels.load(builder, place) for place in places]

    def _x_address(self, x: Any, row: int, number: int) -> Any:
        offset = self.builder.mul(self.operands.x_stride, i64(row))
        return self.builder.add(self.builder.add(x, offset), i64(number * X_STEP_BYTES))

    def _row(self, sums: list[Any], row: int) -> list[Any]:
        return sums[row * self._width : (row + 1) * self._width]

    def _prefetch(self, address: Any, num_bytes: int) -> None:
        if self.shape.prefetches:
            for line in range(0, num_bytes, CACHE_LINE):
                place = self.builder.add(address, i64(line))
                emit_prefetch(self.builder, place, is_reused=not self.shape.is_last_reader)

    def _finish_run(self, run: Any, sums: list[Any]) -> None:
        """c += scales * sum, and what zeros away from the middle add."""
        builder, op = self.builder, self.operands
        record = builder.add(op.scales, builder.mul(run, op.scales_stride))
        ahead = builder.add(record, builder.mul(op.scales_stride, i64(_RUNS_AHEAD)))
        self._prefetch(ahead, ZEROS_OFFSET + GROUP * self.zero_bytes)
        scales = [self._scale(record, i) for i in range(self._width)]
        for row in range(self.shape.rows):
            self._add_to_row(row, scales, self._row(sums, row))
        with builder.if_then(builder.icmp_signed("!=", op.x_sums, i64(0))):
            offsets = [builder.fmul(s, self._zeros(record, i)) for i, s in enumerate(scales)]
            for row in range(self.shape.rows):
                stride = builder.mul(op.x_sums_stride, i64(row))
                place = builder.add(builder.add(op.x_sums, stride), builder.mul(run, i64(4)))
                x_sum = builder.load(builder.inttoptr(place, F32.as_pointer()))
                self._add_to_row(row, offsets, [splat(builder, x_sum, self._vector)] * self._width)

    def _add_to_row(self, row: int, factors: list[Any], values: list[Any]) -> None:
        builder, size = self.builder, self._vector.count * FP32_BYTES
        for i, (factor, value) in enumerate(zip(factors, values, strict=True)):
            address = builder.add(self.operands.c, i64(row * GROUP * FP32_BYTES + i * size))
            before = load_vector(builder, address, self._vector)
            store_vector(builder, fma(builder, factor, value, before), address)

    def _scale(self, record: Any, index: int) -> Any:
        half = self._load(record, index, _HALF, SCALE_BYTES)
        return self.builder.fpext(half, self._vector)

    def _zeros(self, record: Any, index: int) -> Any:
        stored = I8 if self.zero_bytes == 1 else I16
        zeros = self.builder.add(record, i64(ZEROS_OFFSET))
        wide = ir.VectorType(I32, self._vector.count)
        loaded = self._load(zeros, index, stored, self.zero_bytes)
        return self.builder.sitofp(self.builder.sext(loaded, wide), self._vector)

    def _load(self, base: Any, index: int, element: Any, size: int) -> Any:
        """The `index`-th vector of elements, from the tile's first panel on."""
        builder, lanes = self.builder, int(self._vector.count)
        column = builder.add(builder.mul(self.operands.panel, i64(PANEL)), i64(index * lanes))
        vector = ir.VectorType(element, lanes)
        return builder.load(element_pointer(builder, base, column, size, vector), align=size)


def _advance(builder: Any, variable: Any, num_bytes: int) -> None:
    builder.store(builder.add(builder.load(variable), i64(num_bytes)), variable)


def make_unpack(levels: Levels) -> Any:
    """`unpack(units, count, out)`: the operands of `count` units of a panel, one after the other,
    as `levels.Ready` reads them."""

    @intrinsic
    def unpack(context: Any, units: Any, count: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            units, count, out = arguments
            w, to = stack_variable(builder, units), stack_variable(builder, out)
            with loop_range(builder, count):
                unit = levels.load(builder, builder.load(w))
                for number in range(unit_steps(levels.mul_add)):
                    for vector in levels.step(builder, unit, number):
                        store_vector(builder, vector, builder.load(to))
                        _advance(builder, to, vector.type.count * FP32_BYTES)
                _advance(builder, w, levels.unit_bytes)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return unpack
