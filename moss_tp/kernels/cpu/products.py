"""How a tile multiplies: what one step takes from x and from a panel, and adds to the sums.

    step:   4 bytes of a row of x  times  PANEL columns of a panel  into PANEL sums in fp32

                 x                   panel, a step's columns side by side
    WIDE_FP32    one fp32            fp32
    WIDE_BF16    one fp32            bf16, column i and column i + 8 as neighbours (see `vectors`)
    LONG_FP32    one fp32            fp32                                            AVX-512
    DOT_BF16     two bf16            two bf16 of each column; products are exact     AVX-512 BF16

It knows no loops.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from llvmlite import ir

from moss_tp.kernels.cpu.vectors import (
    BF16,
    FP32,
    Bfloats,
    fma,
    load_broadcast,
    load_halves,
    pointer_to,
    vector_of,
)
from moss_tp.native.simd import BF16_BYTES, FP32_BYTES, I32, call

PANEL = 16
X_BYTES = 4  # of a row of x, a step
WIDE, LONG = vector_of(PANEL // 2), vector_of(PANEL)
_LONG_WORDS = ir.VectorType(I32, PANEL)


class Product(Protocol):
    """The arithmetic of one step; vectors hold a panel's columns in their order."""

    @property
    def step_bytes(self) -> int:
        """Of a panel, a step."""

    @property
    def vector(self) -> Any:
        """The type of sums; PANEL of them are one or two vectors."""

    def weights(self, builder: Any, panel: Any, step: Any) -> tuple[Any, ...]: ...

    def x(self, builder: Any, place: Any) -> Any: ...

    def add(self, builder: Any, x: Any, weights: Any, total: Any) -> Any: ...


@dataclass(frozen=True)
class _Wide:
    """In fp32 arithmetic, by vectors of half a panel: 16 registers."""

    kind: int
    vector = WIDE

    @property
    def step_bytes(self) -> int:
        return PANEL * (BF16_BYTES if self.kind == BF16 else FP32_BYTES)

    def weights(self, builder: Any, panel: Any, step: Any) -> tuple[Any, ...]:
        return load_halves(builder, panel, step, self.kind, WIDE.count)

    def x(self, builder: Any, place: Any) -> Any:
        return load_broadcast(builder, place, WIDE)

    def add(self, builder: Any, x: Any, weights: Any, total: Any) -> Any:
        return fma(builder, x, weights, total)


@dataclass(frozen=True)
class _Long:
    """In fp32 arithmetic, by vectors of a whole panel: 32 registers."""

    vector = LONG
    loaded = LONG  # of x and of a panel: a step is 4 bytes of each column
    step_bytes = PANEL * FP32_BYTES

    def weights(self, builder: Any, panel: Any, step: Any) -> tuple[Any, ...]:
        pointer = pointer_to(builder, panel, step, self.step_bytes, self.loaded)
        return (builder.load(pointer, align=4),)

    def x(self, builder: Any, place: Any) -> Any:
        return load_broadcast(builder, place, self.loaded)

    def add(self, builder: Any, x: Any, weights: Any, total: Any) -> Any:
        return fma(builder, x, weights, total)


@dataclass(frozen=True)
class _Dot(_Long):
    """Two products a column and step, summed in fp32: what is loaded are pairs of bf16."""

    loaded = _LONG_WORDS

    def add(self, builder: Any, x: Any, weights: Any, total: Any) -> Any:
        pairs = Bfloats(2 * PANEL)
        arguments = [total, builder.bitcast(x, pairs), builder.bitcast(weights, pairs)]
        return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", LONG, arguments)


WIDE_FP32, WIDE_BF16 = _Wide(FP32), _Wide(BF16)
LONG_FP32, DOT_BF16 = _Long(), _Dot()
