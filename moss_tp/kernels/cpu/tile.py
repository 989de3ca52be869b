"""The innermost product: a few rows of x times panels of 16 columns, summed in registers.

    c (rows, panels * 16) += x (rows, k) @ panel (k, 16)

A panel holds its 16 columns side by side for each k, in fp32 or in bf16, there with column i and
column i + 8 as neighbours (see `vectors`). Each sum runs over k in order, whatever the tile: a
row's result does not depend on the rows beside it.
"""

from typing import Any

from numba import types

from moss_tp.kernels.cpu.vectors import (
    BF16,
    CHUNK,
    FP32,
    LANES,
    LINE,
    VECTOR,
    fma,
    load_broadcast,
    load_halves,
    pointer_to,
)
from moss_tp.native.simd import BF16_BYTES, FP32_BYTES, I64, emit_prefetch, i64, intrinsic

PANEL = CHUNK
UNROLL = 4

# rows: panels at once. As many sums as hide the latency of an FMA and fit 16 registers.
PANELS = {1: 4, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1}
MAX_ROWS = max(PANELS)

Grid = list[list[Any]]  # vectors, by row and by half panel


def make_tile(rows: int, is_bf16: bool) -> Any:
    """`tile(x, x_stride, w, panel_stride, k, c, c_stride, ahead, ahead_rate)` for `rows` rows of
    x and `PANELS[rows]` panels: addresses and strides in bytes, k in elements. In bf16, memory
    is meanwhile asked for what lies `ahead` bytes beyond each panel's start, `ahead_rate` bytes
    for each k."""

    @intrinsic
    def tile(
        context: Any,
        x: Any,
        x_stride: Any,
        w: Any,
        stride: Any,
        k: Any,
        c: Any,
        c_stride: Any,
        ahead: Any,
        rate: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _Tile(builder, rows, is_bf16, *arguments).emit()
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return tile


class _Tile:
    """Emits one tile's instructions."""

    def __init__(
        self,
        builder: Any,
        rows: int,
        is_bf16: bool,
        x: Any,
        x_stride: Any,
        w: Any,
        panel_stride: Any,
        k: Any,
        c: Any,
        c_stride: Any,
        ahead: Any,
        rate: Any,
    ) -> None:
        self._ahead, self._rate = ahead, rate
        self._builder, self._is_bf16, self._k = builder, is_bf16, k
        self._x = self._strided(x, x_stride, rows)
        self._w = self._strided(w, panel_stride, PANELS[rows])
        self._c = self._strided(c, c_stride, rows)

    def emit(self) -> None:
        """
        entry -> unrolled loop -> rest? -> loop over the rest -> end
        """
        builder = self._builder
        entry = builder.block
        unrolled, rest, single, end = (
            builder.append_basic_block(name) for name in ("unrolled", "rest", "single", "end")
        )
        many = builder.and_(self._k, i64(-UNROLL))
        sums = [[builder.load(place, align=4) for place in row] for row in self._places()]
        builder.cbranch(builder.icmp_signed(">", many, i64(0)), unrolled, rest)
        after = self._loop(unrolled, rest, (i64(0), many), UNROLL, (entry, sums))
        builder.position_at_end(rest)
        middle = self._join((entry, sums), (unrolled, after))
        builder.cbranch(builder.icmp_signed("<", many, self._k), single, end)
        last = self._loop(single, end, (many, self._k), 1, (rest, middle))
        builder.position_at_end(end)
        sums = self._join((rest, middle), (single, last))
        for row, places in zip(sums, self._places(), strict=True):
            for value, place in zip(row, places, strict=True):
                builder.store(value, place, align=4)

    def _loop(
        self, body: Any, after: Any, span: tuple[Any, Any], step: int, before: tuple[Any, Grid]
    ) -> Grid:
        """`body` over `span` of k in steps of `step`; the sums at its end."""
        builder = self._builder
        builder.position_at_end(body)
        position = builder.phi(I64)
        position.add_incoming(span[0], before[0])
        carried = self._join(before)
        sums = [list(row) for row in carried]
        if self._is_bf16 and step == UNROLL:
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

    def _step(self, k: Any, sums: Grid) -> None:
        builder = self._builder
        for panel, address in enumerate(self._w):
            halves = load_halves(builder, address, k, BF16 if self._is_bf16 else FP32)
            for row, x in enumerate(self._x):
                value = load_broadcast(builder, x, k)
                for half, weights in enumerate(halves, 2 * panel):
                    sums[row][half] = fma(builder, value, weights, sums[row][half])

    def _prefetch(self, k: Any) -> None:
        builder = self._builder
        offset = builder.add(self._ahead, builder.mul(k, self._rate))
        for panel in self._w:
            for line in range(0, UNROLL * PANEL * BF16_BYTES, LINE):
                place = builder.add(builder.add(panel, offset), i64(line))
                emit_prefetch(builder, place)

    def _places(self) -> Grid:
        """Where the sums live in c."""
        size, halves = LANES * FP32_BYTES, range(2 * len(self._w))
        return [
            [pointer_to(self._builder, row, i64(half), size, VECTOR) for half in halves]
            for row in self._c
        ]

    def _join(self, *sources: tuple[Any, Grid]) -> Grid:
        """The sums that come from whichever block was left last."""
        grid = [[self._builder.phi(VECTOR) for _ in row] for row in sources[0][1]]
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
