"""Weights as the GEMM reads them: in panels of PANEL columns, K step by K step.

GROUP_PANELS panels are a group, the columns of one task; outputs are padded to whole groups.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.cpu.linear.mul_add import DOT_X16_BF16, FMA_X8_BF16, PANEL, MulAdd
from moss_tp.native.vectors import has_cpu_feature

GROUP_PANELS = 4
GROUP = GROUP_PANELS * PANEL  # columns


@dataclass(frozen=True)
class PackedWeight:
    """`(outputs, inputs)` in panels, with a bias for every padded output."""

    panels: Tensor  # (groups * GROUP_PANELS, inputs * PANEL) bf16, in the order of `mul_add`
    bias: Tensor  # (groups * GROUP,) fp32
    outputs: int
    inputs: int
    mul_add: MulAdd

    @property
    def x_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.mul_add.x_per_step == 2 else torch.float32

    def stack(self, other: "PackedWeight") -> "PackedWeight":
        """Both weights, for one product with the same x: the outputs of `self`, padded to whole
        groups, then those of `other`. `outputs` stays that of `self`."""
        panels = torch.cat((self.panels, other.panels))
        return replace(self, panels=panels, bias=torch.cat((self.bias, other.bias)))


def best_mul_add(inputs: int) -> MulAdd:
    """Dot products of bf16 pairs where the machine has them; they need an even `inputs`."""
    return DOT_X16_BF16 if has_cpu_feature("avx512bf16") and inputs % 2 == 0 else FMA_X8_BF16


def pack_dense(dense: DenseWeight, mul_add: MulAdd | None = None) -> PackedWeight:
    """For `mul_add`, or for the best that this machine has. Raises ValueError if it is not bf16."""
    weight, bias = dense.weight, dense.bias
    outputs, inputs = weight.shape
    if weight.dtype != torch.bfloat16:
        raise ValueError(f"panels hold bf16, not {weight.dtype}")
    mul_add = mul_add or best_mul_add(inputs)
    padded = -(-outputs // GROUP) * GROUP
    rows = weight.new_zeros(padded, inputs)
    rows[:outputs] = weight
    full_bias = torch.zeros(padded)
    if bias is not None:
        full_bias[:outputs] = bias
    if mul_add is DOT_X16_BF16:
        panels = rows.view(-1, PANEL, inputs // 2, 2).transpose(1, 2)
    else:
        panels = rows.view(-1, 2, PANEL // 2, inputs).permute(0, 3, 2, 1)
    panels = panels.reshape(-1, inputs * PANEL)
    return PackedWeight(panels, full_bias, outputs, inputs, mul_add)
