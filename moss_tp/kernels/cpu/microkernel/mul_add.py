"""The multiply-add of a tile: what one K step takes from x and from a weight panel.

    K step:   4 bytes of a row of x  times  PANEL columns of a panel,  added to PANEL fp32 sums

                   x            panel, the columns of a K step side by side
    FMA_X8_FP32    one fp32     fp32
    FMA_X8_FP16    one fp32     fp16, widened
    FMA_X8_BF16    one fp32     bf16, widened; column i next to column i + 8, see `native.vectors`
    FMA_X16_FP32   one fp32     fp32                                              AVX-512
    FMA_X16_FP16   one fp32     fp16, widened                                     AVX-512
    DOT_X16_BF16   two bf16     two bf16 of each column; the products are exact   AVX-512 BF16
    AMX_X16_BF16   as DOT_X16_BF16, sixteen K steps at once                       AMX

X8 and X16 are the lanes of a vector. The loops are in `tile`, those of AMX in `amx_tile`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from llvmlite import ir

from moss_tp.native.dtypes import BF16, ELEMENT_BYTES, FP16, FP32
from moss_tp.native.llvm import BF16_BYTES, I32, call
from moss_tp.native.vectors import (
    BFloatVector,
    element_pointer,
    fma,
    fp32_vector,
    load_broadcast,
    load_vector_pair,
    load_whole_vector,
)

PANEL = 16  # columns
GROUP_PANELS = 4
GROUP = GROUP_PANELS * PANEL  # columns of a task
X_STEP_BYTES = 4  # of a row of x, in a K step
_X8, _X16 = fp32_vector(PANEL // 2), fp32_vector(PANEL)
_PAIRS = ir.VectorType(I32, PANEL)  # of bf16


class MulAdd(Protocol):
    """What its operands are."""

    @property
    def dtype(self) -> int:
        """The code of a panel's elements, see `native.dtypes`."""

    @property
    def panel_step_bytes(self) -> int:
        """Of a panel, in a K step."""

    @property
    def x_per_step(self) -> int:
        """Elements of a row of x in a K step: one fp32, or two bf16."""

    @property
    def steps_at_once(self) -> int:
        """K steps that are never cut."""


class VectorMulAdd(MulAdd, Protocol):
    """The arithmetic of one K step. Vectors hold a panel's columns in their order."""

    @property
    def vector(self) -> Any:
        """The LLVM type of sums; PANEL sums are one or two vectors."""

    def load_weights(self, builder: Any, panel: Any, step: Any) -> tuple[Any, ...]: ...

    def load_x(self, builder: Any, address: Any) -> Any: ...

    def mul_add(self, builder: Any, x: Any, weights: Any, sums: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class _FmaX8:
    """fp32 FMAs on half a panel at a time: for machines with 16 registers."""

    dtype: int  # of the panel
    vector = _X8
    x_per_step = 1
    steps_at_once = 1

    @property
    def panel_step_bytes(self) -> int:
        return PANEL * ELEMENT_BYTES[self.dtype]

    def load_weights(self, builder: Any, panel: Any, step: Any) -> tuple[Any, ...]:
        return load_vector_pair(builder, panel, step, self.dtype, _X8.count)

    def load_x(self, builder: Any, address: Any) -> Any:
        return load_broadcast(builder, address, _X8)

    def mul_add(self, builder: Any, x: Any, weights: Any, sums: Any) -> Any:
        return fma(builder, x, weights, sums)


@dataclass(frozen=True, eq=False)
class _FmaX16:
    """fp32 FMAs on a whole panel at a time: for machines with 32 registers."""

    dtype: int  # FP32 or FP16
    vector = _X16
    x_per_step = 1
    steps_at_once = 1

    @property
    def panel_step_bytes(self) -> int:
        return PANEL * ELEMENT_BYTES[self.dtype]

    def load_weights(self, builder: Any, panel: Any, step: Any) -> tuple[Any, ...]:
        return (load_whole_vector(builder, panel, step, self.dtype, PANEL),)

    def load_x(self, builder: Any, address: Any) -> Any:
        return load_broadcast(builder, address, _X16)

    def mul_add(self, builder: Any, x: Any, weights: Any, sums: Any) -> Any:
        return fma(builder, x, weights, sums)


@dataclass(frozen=True, eq=False)
class _DotX16:
    """vdpbf16ps: two products a column and K step, summed in fp32."""

    dtype = BF16
    vector = _X16
    x_per_step = 2
    steps_at_once = 1
    panel_step_bytes = PANEL * 2 * BF16_BYTES

    def load_weights(self, builder: Any, panel: Any, step: Any) -> tuple[Any, ...]:
        pointer = element_pointer(builder, panel, step, self.panel_step_bytes, _PAIRS)
        return (builder.load(pointer, align=4),)

    def load_x(self, builder: Any, address: Any) -> Any:
        return load_broadcast(builder, address, _PAIRS)

    def mul_add(self, builder: Any, x: Any, weights: Any, sums: Any) -> Any:
        pairs = BFloatVector(2 * PANEL)
        arguments = [sums, builder.bitcast(x, pairs), builder.bitcast(weights, pairs)]
        return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", _X16, arguments)


@dataclass(frozen=True, eq=False)
class _Tiles:
    """tdpbf16ps: on panels as of `_DotX16`."""

    dtype = BF16
    x_per_step = 2
    steps_at_once = 16
    panel_step_bytes = PANEL * 2 * BF16_BYTES


FMA_X8_FP32, FMA_X8_BF16, FMA_X8_FP16 = _FmaX8(FP32), _FmaX8(BF16), _FmaX8(FP16)
FMA_X16_FP32, FMA_X16_FP16, DOT_X16_BF16 = _FmaX16(FP32), _FmaX16(FP16), _DotX16()
AMX_X16_BF16 = _Tiles()
