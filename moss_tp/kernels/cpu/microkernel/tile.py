"""The innermost loop of a matrix product: a few rows of x times panels, summed in registers.

    c (rows, panels * 16) += x (rows, steps) @ panels (steps, 16)

What a K step is depends on the multiply-add; the K steps of x may lie any distance apart. Each sum
takes the K steps in order, whatever the tile, so a row's result does not depend on the rows
beside it. Emitted as LLVM, since Numba cannot keep an array in registers.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from moss_tp.kernels.cpu.microkernel.mul_add import PANEL, VectorMulAdd
from moss_tp.native.llvm import FP32_BYTES, I64, i64, intrinsic
from moss_tp.native.memory import emit_prefetch
from moss_tp.native.vectors import CACHE_LINE, element_pointer

UNROLL = 4

Grid = list[list[Any]]  # of LLVM values: by row, then by the vectors of its panels


class TileShape(NamedTuple):
    rows: int
    panels: int
    prefetches: bool = False
    is_last_reader: bool = False  # nothing reads its panels again, so they need not be cached


class TileOperands(NamedTuple):
    """Arguments of a tile, as LLVM values: addresses, and strides in bytes."""

    x: Any
    x_stride: Any
    x_step: Any
    w: Any
    panel_stride: Any
    steps: Any  # K steps
    c: Any
    c_stride: Any
    prefetch_offset: Any  # beyond each panel's start,
    prefetch_rate: Any  # and bytes a K step from there on


def make_tile(
    mul_add: VectorMulAdd, shapes: Mapping[int, TileShape], accumulates: bool = True
) -> Any:
    """`tile(shape, …)`: a key of `shapes`, then the fields of TileOperands.

    It adds to c if it `accumulates`, else overwrites c.
    """

    @intrinsic
    def tile(
        context: Any,
        shape: Any,
        x: Any,
        x_stride: Any,
        x_step: Any,
        w: Any,
        panel_stride: Any,
        steps: Any,
        c: Any,
        c_stride: Any,
        prefetch_offset: Any,
        prefetch_rate: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            key, *rest = arguments
            operands = TileOperands(*rest)

            def emit(shape: TileShape) -> None:
                _TileEmitter(builder, mul_add, shape, accumulates, operands).emit()

            emit_switch(builder, key, shapes, emit)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11), codegen

    return tile


def emit_switch(
    builder: Any, key: Any, shapes: Mapping[int, TileShape], emit: Callable[[TileShape], None]
) -> None:
    """
    switch on key -> one tile each -> end
    """
    end = builder.append_basic_block("end")
    switch = builder.switch(key, end)
    for number, shape in shapes.items():
        block = builder.append_basic_block(f"shape_{number}")
        switch.add_case(i64(number), block)
        builder.position_at_end(block)
        emit(shape)
        builder.branch(end)
    builder.position_at_end(end)


class _TileEmitter:
    """Emits the instructions of a tile of one shape."""

    def __init__(
        self,
        builder: Any,
        mul_add: VectorMulAdd,
        shape: TileShape,
        accumulates: bool,
        operands: TileOperands,
    ) -> None:
        self._builder, self._mul_add, self._steps = builder, mul_add, operands.steps
        self._shape, self._accumulates, self._operands = shape, accumulates, operands
        self._x = self._strided(operands.x, operands.x_stride, shape.rows)
        self._w = self._strided(operands.w, operands.panel_stride, shape.panels)
        self._c = self._strided(operands.c, operands.c_stride, shape.rows)

    def emit(self) -> None:
        """
        entry -> unrolled loop -> rest? -> loop over the rest -> end
        """
        builder = self._builder
        entry = builder.block
        unrolled, rest, single, end = (
            builder.append_basic_block(name) for name in ("unrolled", "rest", "single", "end")
        )
        unrolled_steps = builder.and_(self._steps, i64(-UNROLL))
        sums = [[self._initial(pointer) for pointer in row] for row in self._c_pointers()]
        builder.cbranch(builder.icmp_signed(">", unrolled_steps, i64(0)), unrolled, rest)
        after = self._loop(unrolled, rest, (i64(0), unrolled_steps), UNROLL, (entry, sums))
        builder.position_at_end(rest)
        middle = self._phis((entry, sums), (unrolled, after))
        builder.cbranch(builder.icmp_signed("<", unrolled_steps, self._steps), single, end)
        last = self._loop(single, end, (unrolled_steps, self._steps), 1, (rest, middle))
        builder.position_at_end(end)
        sums = self._phis((rest, middle), (single, last))
        for row, pointers in zip(sums, self._c_pointers(), strict=True):
            for value, pointer in zip(row, pointers, strict=True):
                builder.store(value, pointer, align=4)

    def _initial(self, pointer: Any) -> Any:
        vector = self._mul_add.vector
        zero = ir.Constant(vector, [0.0] * vector.count)
        return self._builder.load(pointer, align=4) if self._accumulates else zero

    def _loop(
        self, body: Any, after: Any, span: tuple[Any, Any], unroll: int, before: tuple[Any, Grid]
    ) -> Grid:
        """Emits block `body`: a loop over the K steps `span`, `unroll` at a time. `before` is the
        block that enters it, with its sums. Returns the sums at the end of `body`."""
        builder = self._builder
        builder.position_at_end(body)
        position = builder.phi(I64)
        position.add_incoming(span[0], before[0])
        carried = self._phis(before)
        sums = [list(row) for row in carried]
        if unroll == UNROLL and self._shape.prefetches:
            self._prefetch(position)
        for offset in range(unroll):
            self._k_step(builder.add(position, i64(offset)), sums)
        following = builder.add(position, i64(unroll))
        position.add_incoming(following, body)
        for phis, row in zip(carried, sums, strict=True):
            for phi, value in zip(phis, row, strict=True):
                phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", following, span[1]), body, after)
        return sums

    def _k_step(self, step: Any, sums: Grid) -> None:
        builder, mul_add = self._builder, self._mul_add
        weights = [vector for w in self._w for vector in mul_add.load_weights(builder, w, step)]
        offset = builder.mul(step, self._operands.x_step)
        for row, x in zip(sums, self._x, strict=True):
            value = mul_add.load_x(builder, builder.add(x, offset))
            for i, vector in enumerate(weights):
                row[i] = mul_add.mul_add(builder, value, vector, row[i])

    def _prefetch(self, step: Any) -> None:
        builder, operands = self._builder, self._operands
        ahead = builder.mul(step, operands.prefetch_rate)
        offset = builder.add(operands.prefetch_offset, ahead)
        for panel in self._w:
            for line in range(0, UNROLL * self._mul_add.panel_step_bytes, CACHE_LINE):
                address = builder.add(builder.add(panel, offset), i64(line))
                emit_prefetch(builder, address, is_reused=not self._shape.is_last_reader)

    def _c_pointers(self) -> Grid:
        vector = self._mul_add.vector
        size = vector.count * FP32_BYTES
        count = len(self._w) * PANEL // vector.count
        return [
            [element_pointer(self._builder, row, i64(i), size, vector) for i in range(count)]
            for row in self._c
        ]

    def _phis(self, *sources: tuple[Any, Grid]) -> Grid:
        """The sums of whichever source block was left last."""
        vector: ir.VectorType = self._mul_add.vector
        grid = [[self._builder.phi(vector) for _ in row] for row in sources[0][1]]
        for block, sums in sources:
            for phis, row in zip(grid, sums, strict=True):
                for phi, value in zip(phis, row, strict=True):
                    phi.add_incoming(value, block)
        return grid

    def _strided(self, base: Any, stride: Any, count: int) -> list[Any]:
        addresses = [base]
        for _ in range(1, count):
            addresses.append(self._builder.add(addresses[-1], stride))
        return addresses
