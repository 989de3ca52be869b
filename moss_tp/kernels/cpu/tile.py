"""The innermost product: a few rows of x times panels of 16 columns, summed in registers.

    c (rows, panels * 16) += x (rows, steps) @ panel (steps, 16)

What a step is says the `Product`; steps of x may lie any distance apart. Each sum runs over the
steps in order, whatever the tile: a row's result does not depend on the rows beside it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from moss_tp.kernels.cpu.products import PANEL, Product
from moss_tp.kernels.cpu.vectors import LINE, pointer_to
from moss_tp.native.simd import FP32_BYTES, I64, emit_prefetch, i64, intrinsic

UNROLL = 4

Grid = list[list[Any]]  # vectors, by row and by panel or half of one


class Shape(NamedTuple):
    rows: int
    panels: int
    asks: bool = False  # memory, meanwhile, for what lies ahead
    is_last: bool = False  # to read its panels


def make_tile(product: Product, shapes: Mapping[int, Shape], adds: bool = True) -> Any:
    """`tile(shape, x, x_stride, x_step, w, panel_stride, steps, c, c_stride, ahead, ahead_rate)`:
    a key of `shapes`, then addresses, and strides in bytes. It `adds` to c, or overwrites it. What
    it asks memory for lies `ahead` bytes beyond each panel's start, `ahead_rate` bytes a step."""

    @intrinsic
    def tile(
        context: Any,
        shape: Any,
        x: Any,
        x_stride: Any,
        x_step: Any,
        w: Any,
        stride: Any,
        steps: Any,
        c: Any,
        c_stride: Any,
        ahead: Any,
        rate: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            """
            switch on shape -> one tile each -> end
            """
            wanted, *rest = arguments
            end = builder.append_basic_block("end")
            switch = builder.switch(wanted, end)
            for key, emitted in shapes.items():
                block = builder.append_basic_block(f"shape_{key}")
                switch.add_case(i64(key), block)
                builder.position_at_end(block)
                _Tile(builder, product, emitted, adds, *rest).emit()
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11), codegen

    return tile


class _Tile:
    """Emits one tile's instructions."""

    def __init__(
        self,
        builder: Any,
        product: Product,
        shape: Shape,
        adds: bool,
        x: Any,
        x_stride: Any,
        x_step: Any,
        w: Any,
        panel_stride: Any,
        steps: Any,
        c: Any,
        c_stride: Any,
        ahead: Any,
        rate: Any,
    ) -> None:
        self._shape, self._adds, self._ahead, self._rate = shape, adds, ahead, rate
        self._builder, self._product, self._steps = builder, product, steps
        self._x, self._x_step = self._strided(x, x_stride, shape.rows), x_step
        self._w = self._strided(w, panel_stride, shape.panels)
        self._c = self._strided(c, c_stride, shape.rows)

    def emit(self) -> None:
        """
        entry -> unrolled loop -> rest? -> loop over the rest -> end
        """
        builder = self._builder
        entry = builder.block
        unrolled, rest, single, end = (
            builder.append_basic_block(name) for name in ("unrolled", "rest", "single", "end")
        )
        many = builder.and_(self._steps, i64(-UNROLL))
        sums = [[self._start(place) for place in row] for row in self._places()]
        builder.cbranch(builder.icmp_signed(">", many, i64(0)), unrolled, rest)
        after = self._loop(unrolled, rest, (i64(0), many), UNROLL, (entry, sums))
        builder.position_at_end(rest)
        middle = self._join((entry, sums), (unrolled, after))
        builder.cbranch(builder.icmp_signed("<", many, self._steps), single, end)
        last = self._loop(single, end, (many, self._steps), 1, (rest, middle))
        builder.position_at_end(end)
        sums = self._join((rest, middle), (single, last))
        for row, places in zip(sums, self._places(), strict=True):
            for value, place in zip(row, places, strict=True):
                builder.store(value, place, align=4)

    def _start(self, place: Any) -> Any:
        zero = ir.Constant(self._product.vector, [0.0] * self._product.vector.count)
        return self._builder.load(place, align=4) if self._adds else zero

    def _loop(
        self, body: Any, after: Any, span: tuple[Any, Any], step: int, before: tuple[Any, Grid]
    ) -> Grid:
        """`body` over `span` of the steps, `step` at a time; the sums at its end."""
        builder = self._builder
        builder.position_at_end(body)
        position = builder.phi(I64)
        position.add_incoming(span[0], before[0])
        carried = self._join(before)
        sums = [list(row) for row in carried]
        if step == UNROLL and self._shape.asks:
            self._prefetch(position)
        for offset in range(step):
            self._step(builder.add(position, i64(offset)), sums)
        following = builder.add(position, i64(step))
        position.add_incoming(following, body)
        for phis, row in zip(carried, sums, strict=True):
            for phi, value in zip(phis, row, strict=True):
                phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", following, span[1]), body, after)
        return sums

    def _step(self, step: Any, sums: Grid) -> None:
        builder, product = self._builder, self._product
        weights = [vector for w in self._w for vector in product.weights(builder, w, step)]
        offset = builder.mul(step, self._x_step)
        for own, x in zip(sums, self._x, strict=True):
            value = product.x(builder, builder.add(x, offset))
            for i, vector in enumerate(weights):
                own[i] = product.add(builder, value, vector, own[i])

    def _prefetch(self, step: Any) -> None:
        builder = self._builder
        offset = builder.add(self._ahead, builder.mul(step, self._rate))
        for panel in self._w:
            for line in range(0, UNROLL * self._product.step_bytes, LINE):
                place = builder.add(builder.add(panel, offset), i64(line))
                emit_prefetch(builder, place, stays=not self._shape.is_last)

    def _places(self) -> Grid:
        """Where the sums live in c."""
        vector = self._product.vector
        size = vector.count * FP32_BYTES
        count = len(self._w) * PANEL // vector.count
        return [
            [pointer_to(self._builder, row, i64(i), size, vector) for i in range(count)]
            for row in self._c
        ]

    def _join(self, *sources: tuple[Any, Grid]) -> Grid:
        """The sums that come from whichever block was left last."""
        vector: ir.VectorType = self._product.vector
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
