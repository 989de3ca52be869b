"""Weights as the GEMM reads them: in panels of PANEL columns, K step by K step, leaf by leaf.

GROUP_PANELS panels are a group, the columns of one task; outputs are padded to whole groups.
"""

from dataclasses import dataclass, replace
from math import gcd

import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.cpu.linear.leaf_sums import Leaves, joined, merges_of, num_levels, whole
from moss_tp.kernels.cpu.microkernel.mul_add import (
    AMX_X16_BF16,
    DOT_X16_BF16,
    FMA_X8_BF16,
    FMA_X8_FP16,
    FMA_X8_FP32,
    FMA_X16_FP16,
    FMA_X16_FP32,
    GROUP,
    PANEL,
    MulAdd,
)
from moss_tp.native.amx import has_amx
from moss_tp.native.dtypes import BF16, FP16, FP32
from moss_tp.native.vectors import has_cpu_feature

_DTYPES = {FP32: torch.float32, BF16: torch.bfloat16, FP16: torch.float16}
_X8: dict[torch.dtype, MulAdd] = {torch.float32: FMA_X8_FP32, torch.float16: FMA_X8_FP16}
_X16: dict[torch.dtype, MulAdd] = {torch.float32: FMA_X16_FP32, torch.float16: FMA_X16_FP16}


@dataclass(frozen=True)
class PackedWeight:
    """`(outputs, inputs)` in panels, with a bias for every padded output."""

    panels: Tensor  # (groups * GROUP_PANELS, inputs * PANEL) in the order of `mul_add`
    bias: Tensor  # (groups * GROUP,) fp32
    spans: Tensor  # (spans, 3) int64: where it begins in x, in K steps; K steps; merges behind it
    levels: int  # of sums, see `leaf_sums`
    outputs: int
    inputs: int
    mul_add: MulAdd

    @property
    def x_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.mul_add.x_per_step == 2 else torch.float32

    @property
    def dtype(self) -> torch.dtype:
        """Of the model."""
        return weight_dtype(self.mul_add)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What differs between weights of one layout."""
        return (self.panels, self.bias, self.spans)

    @property
    def layout(self) -> tuple[object, ...]:
        """Equal for weights that the same program can multiply by."""
        return (self.mul_add, self.panels.shape, self.spans.shape, self.levels)

    def stack(self, other: "PackedWeight") -> "PackedWeight":
        """See `gemm.Packed`. Both are one leaf."""
        panels = torch.cat((self.panels, other.panels))
        return replace(self, panels=panels, bias=torch.cat((self.bias, other.bias)))


def weight_dtype(mul_add: MulAdd) -> torch.dtype:
    """The dtype of the weights that `mul_add` multiplies by."""
    return _DTYPES[mul_add.dtype]


def inputs_at_once(mul_add: MulAdd) -> int:
    """Inputs that are never cut."""
    return mul_add.x_per_step * mul_add.steps_at_once


def best_mul_add(dtype: torch.dtype, inputs: int) -> MulAdd:
    """The fastest for weights of `dtype` on this machine, of which a product takes multiples of
    `inputs`: only even ones can be pairs of bf16. Raises ValueError for a dtype without one."""
    if dtype == torch.bfloat16:
        if has_amx() and inputs % inputs_at_once(AMX_X16_BF16) == 0:
            return AMX_X16_BF16
        has_dot = has_cpu_feature("avx512bf16") and inputs % 2 == 0
        return DOT_X16_BF16 if has_dot else FMA_X8_BF16
    if dtype not in _X16:
        raise ValueError(f"there are no panels of {dtype}")
    return (_X16 if has_cpu_feature("avx512f") else _X8)[dtype]


def pack_dense(
    dense: DenseWeight, mul_add: MulAdd | None = None, leaves: Leaves | None = None
) -> PackedWeight:
    """For `mul_add`, or for the best that this machine has; in `leaves`, or in one. Raises
    ValueError for a weight of another dtype, and for leaves that cut what is taken at once."""
    weight, bias = dense.weight, dense.bias
    outputs, inputs = weight.shape
    leaves = leaves or whole(inputs)
    # Of ranges that are not joined yet: those are the same on any number of ranks.
    lengths = [len(part) for ranges in leaves for part in ranges]
    mul_add = mul_add or best_mul_add(weight.dtype, gcd(*lengths))
    if weight.dtype != weight_dtype(mul_add):
        raise ValueError(f"panels of {weight_dtype(mul_add)} for a weight of {weight.dtype}")
    if any(length % inputs_at_once(mul_add) for length in lengths):
        raise ValueError(f"{lengths} inputs, of which {inputs_at_once(mul_add)} are taken at once")
    leaves = joined(leaves)
    spans = [span for ranges in leaves for span in ranges]
    padded = -(-outputs // GROUP) * GROUP
    rows = weight.new_zeros(padded, inputs)
    torch.cat([weight[:, span.start : span.stop] for span in spans], 1, out=rows[:outputs])
    full_bias = torch.zeros(padded)
    if bias is not None:
        full_bias[:outputs] = bias
    if mul_add.x_per_step == 2:
        panels = rows.view(-1, PANEL, inputs // 2, 2).transpose(1, 2)
    elif mul_add.dtype == BF16:
        panels = rows.view(-1, 2, PANEL // 2, inputs).permute(0, 3, 2, 1)
    else:
        panels = rows.view(-1, PANEL, inputs).transpose(1, 2)
    panels = panels.reshape(-1, inputs * PANEL)
    per_step, merges = mul_add.x_per_step, merges_of(leaves)
    table = [
        (span.start // per_step, len(span) // per_step, count)
        for span, count in zip(spans, merges, strict=True)
    ]
    return PackedWeight(
        panels, full_bias, torch.tensor(table), num_levels(len(leaves)), outputs, inputs, mul_add
    )
