"""The levels of a quantized weight, as the operands of a multiply-add.

    level   q - middle: -8 .. 7 of 4 bits, -128 .. 127 of 8. bf16 and fp32 hold it exactly
    unit    UNIT inputs of a panel of PANEL columns, in the K steps of a `VectorMulAdd`

A unit in memory, which ends up the same whatever the arithmetic: a level is stored as its lowest
bits.

    4 bits   a 32-bit word for each column. FMA: its inputs in order, lowest bits first. Dot
             products: those of a K step's pair are 16 bits apart, so that 16-bit lanes shift alike
    8 bits   the bytes of a K step's columns side by side, a pair's next to each other
    ready    the operands themselves, unpacked
"""

import struct
from dataclasses import dataclass
from typing import Any, Protocol

from llvmlite import ir

from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    DOT_X16_BF16,
    FMA_X8_FP32,
    FMA_X16_FP32,
    PANEL,
    MulAdd,
    VectorMulAdd,
)
from moss_tp.native.dtypes import INT8
from moss_tp.native.llvm import FP32_BYTES, I16, I32, call, i64
from moss_tp.native.vectors import load_vector, load_whole_vector, to_bf16

UNIT = 8  # inputs
STEP_BYTES = PANEL * FP32_BYTES  # of a K step's operands, ready
_PAIRS = ir.VectorType(I32, PANEL)
_HALVES = ir.VectorType(I16, 2 * PANEL)


class Levels(Protocol):
    """How a unit is stored, and read for `mul_add`."""

    @property
    def mul_add(self) -> VectorMulAdd: ...

    @property
    def unit_bytes(self) -> int:
        """Of one panel."""

    def load(self, builder: Any, address: Any) -> Any:
        """What `step` takes, of the unit at `address`."""

    def step(self, builder: Any, unit: Any, number: int) -> tuple[Any, ...]:
        """The operands of a K step, as `VectorMulAdd.load_weights`."""


def unit_steps(mul_add: MulAdd) -> int:
    """K steps."""
    return UNIT // mul_add.x_per_step


def _bf16_bits(value: int) -> int:
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return bits >> 16


@dataclass(frozen=True, eq=False)
class _DotLevels4:
    """Each K step is a shift, and a look-up in a table of 16 bf16: the processor's own has 32, so
    the lowest of the next level's bits does not matter."""

    mul_add = DOT_X16_BF16
    unit_bytes = UNIT * PANEL // 2

    def load(self, builder: Any, address: Any) -> Any:
        return builder.bitcast(load_vector(builder, address, _PAIRS), _HALVES)

    def step(self, builder: Any, unit: Any, number: int) -> tuple[Any, ...]:
        levels = [_bf16_bits(level) for level in (*range(8), *range(-8, 0))]
        table = ir.Constant(_HALVES, 2 * levels)
        index = builder.lshr(unit, ir.Constant(_HALVES, [4 * number] * _HALVES.count))
        name = "llvm.x86.avx512.permvar.hi.512"
        return (builder.bitcast(call(builder, name, _HALVES, [table, index]), _PAIRS),)


@dataclass(frozen=True, eq=False)
class _DotLevels8:
    mul_add = DOT_X16_BF16
    unit_bytes = UNIT * PANEL

    def load(self, builder: Any, address: Any) -> Any:
        return address

    def step(self, builder: Any, unit: Any, number: int) -> tuple[Any, ...]:
        low, high = (
            load_whole_vector(builder, unit, i64(2 * number + half), INT8, PANEL)
            for half in range(2)
        )
        return (to_bf16(builder, low, high),)


@dataclass(frozen=True, eq=False)
class _FmaLevels4:
    mul_add: VectorMulAdd
    unit_bytes = UNIT * PANEL // 2

    def load(self, builder: Any, address: Any) -> Any:
        words = ir.VectorType(I32, self.mul_add.vector.count)
        offsets = range(0, self.unit_bytes, words.count * 4)
        return [load_vector(builder, builder.add(address, i64(at)), words) for at in offsets]

    def step(self, builder: Any, unit: Any, number: int) -> tuple[Any, ...]:
        words = unit[0].type
        up, down = (ir.Constant(words, [n] * words.count) for n in (28 - 4 * number, 28))
        levels = (builder.ashr(builder.shl(word, up), down) for word in unit)
        return tuple(builder.sitofp(level, self.mul_add.vector) for level in levels)


@dataclass(frozen=True, eq=False)
class _FmaLevels8:
    mul_add: VectorMulAdd
    unit_bytes = UNIT * PANEL

    def load(self, builder: Any, address: Any) -> Any:
        return address

    def step(self, builder: Any, unit: Any, number: int) -> tuple[Any, ...]:
        lanes = self.mul_add.vector.count
        count = PANEL // lanes
        places = range(number * count, (number + 1) * count)
        return tuple(load_whole_vector(builder, unit, i64(at), INT8, lanes) for at in places)


@dataclass(frozen=True, eq=False)
class Ready:
    """Operands that were written before they are read."""

    mul_add: VectorMulAdd

    @property
    def unit_bytes(self) -> int:
        return unit_steps(self.mul_add) * STEP_BYTES

    def load(self, builder: Any, address: Any) -> Any:
        return address

    def step(self, builder: Any, unit: Any, number: int) -> tuple[Any, ...]:
        vector = _PAIRS if self.mul_add.x_per_step == 2 else self.mul_add.vector
        size = vector.count * FP32_BYTES
        places = range(number * STEP_BYTES, (number + 1) * STEP_BYTES, size)
        return tuple(load_vector(builder, builder.add(unit, i64(at)), vector) for at in places)


DOT_LEVELS_4, DOT_LEVELS_8 = _DotLevels4(), _DotLevels8()
FMA_X8_LEVELS_4, FMA_X8_LEVELS_8 = _FmaLevels4(FMA_X8_FP32), _FmaLevels8(FMA_X8_FP32)
FMA_X16_LEVELS_4, FMA_X16_LEVELS_8 = _FmaLevels4(FMA_X16_FP32), _FmaLevels8(FMA_X16_FP32)

LEVELS: dict[tuple[MulAdd, int], Levels] = {  # by the bits of a level
    (AMX_X16_BF16, 4): DOT_LEVELS_4,
    (AMX_X16_BF16, 8): DOT_LEVELS_8,
    (DOT_X16_BF16, 4): DOT_LEVELS_4,
    (DOT_X16_BF16, 8): DOT_LEVELS_8,
    (FMA_X16_FP32, 4): FMA_X16_LEVELS_4,
    (FMA_X16_FP32, 8): FMA_X16_LEVELS_8,
    (FMA_X8_FP32, 4): FMA_X8_LEVELS_4,
    (FMA_X8_FP32, 8): FMA_X8_LEVELS_8,
}
