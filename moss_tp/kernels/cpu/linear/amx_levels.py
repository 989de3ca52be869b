"""The arithmetic of AMX on one or two rows, in vector registers: without unpacking the levels.

A chunk's products of even inputs are one sum and those of odd inputs another, in fp32 FMAs, and
both together are added to the sums of the run: the bits are those of a tile, see `native.amx`, as
long as no number is subnormal.
"""

from typing import Any

from llvmlite import ir

from moss_tp.kernels.cpu.linear.levels import DOT_LEVELS_4, Levels, unit_steps
from moss_tp.kernels.cpu.linear.quantized_tile import TileEmitter
from moss_tp.kernels.cpu.microkernel.mul_add import AMX_X16_BF16, PANEL
from moss_tp.native.llvm import I8, I16, I32, call, i64, loop_range, stack_variable
from moss_tp.native.vectors import bf16_pairs, fma, fp32_vector, load_broadcast, load_vector

STEPS = unit_steps(AMX_X16_BF16)
CHUNK_UNITS = AMX_X16_BF16.steps_at_once // STEPS
_VECTOR, _WORDS = fp32_vector(PANEL), ir.VectorType(I32, PANEL)
_TABLE = ir.Constant(_VECTOR, [float(level) for level in (*range(8), *range(-8, 0))])


class AmxRows(TileEmitter):
    """Of a run of whole chunks."""

    def _add_units(self, count: Any, w: Any, x: Any, sums: list[Any]) -> None:
        builder = self.builder
        halves = [stack_variable(builder, self._zero) for _ in range(2 * len(sums))]
        with loop_range(builder, builder.sdiv(count, i64(CHUNK_UNITS))):
            for half in halves:
                builder.store(self._zero, half)
            for _ in range(CHUNK_UNITS):
                self._add_halves(builder.load(w), builder.load(x), halves)
                self._advance(w, x)
            for total, even, odd in zip(sums, halves[::2], halves[1::2], strict=True):
                both = _fixed(builder, builder.fadd(builder.load(even), builder.load(odd)))
                builder.store(builder.fadd(builder.load(total), both), total)

    def _add_halves(self, w: Any, x: Any, halves: list[Any]) -> None:
        """The products of a unit. A row's `halves` are the even and the odd sum of each panel."""
        builder, units = self.builder, self._load_units(w)
        for number in range(STEPS):
            weights = [v for unit in units for v in _step(builder, self.levels, unit, number)]
            for row in range(self.shape.rows):
                pair = load_broadcast(builder, self._x_address(x, row, number), _WORDS)
                values = bf16_pairs(builder, pair)
                own = halves[row * len(weights) : (row + 1) * len(weights)]
                for place, (weight, half) in enumerate(zip(weights, own, strict=True)):
                    total = fma(builder, values[place % 2], weight, builder.load(half))
                    builder.store(total, half)


def _step(builder: Any, levels: Levels, unit: Any, number: int) -> tuple[Any, Any]:
    """The levels of a K step in fp32: of even inputs, and of odd ones."""
    if levels is DOT_LEVELS_4:
        words = builder.bitcast(unit, _WORDS)
        even, odd = (_looked_up(builder, words, 4 * number + 16 * half) for half in range(2))
        return even, odd
    place = builder.add(unit, i64(number * 2 * PANEL))
    pairs = load_vector(builder, place, ir.VectorType(I16, PANEL))
    low = builder.trunc(pairs, ir.VectorType(I8, PANEL))
    eight = ir.Constant(_WORDS, [8] * PANEL)
    high = builder.ashr(builder.sext(pairs, _WORDS), eight)
    even = builder.sitofp(builder.sext(low, _WORDS), _VECTOR)
    return even, builder.sitofp(high, _VECTOR)


def _fixed(builder: Any, value: Any) -> Any:
    """No sum is reassociated beyond it: Numba lets LLVM do so in all of a kernel."""
    return call(builder, "llvm.arithmetic.fence.v16f32", _VECTOR, [value])


def _looked_up(builder: Any, words: Any, shift: int) -> Any:
    """The processor looks at the four lowest bits alone."""
    index = builder.lshr(words, ir.Constant(_WORDS, [shift] * PANEL)) if shift else words
    return call(builder, "llvm.x86.avx512.permvar.sf.512", _VECTOR, [_TABLE, index])
