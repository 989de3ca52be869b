"""Weights of 4 and 8 bits in orders of every kind, and x as their products take it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moss_tp.kernels.cuda.quantized.arrange import arrange
from moss_tp.kernels.cuda.quantized.pack import PackedWeight
from moss_tp.kernels.quantized import QuantizedWeight
from tests.moss_tp.kernels.quantized_case import quantized_case


@dataclass(frozen=True)
class Case:
    """`group` -1: all inputs; 0: groups of random sizes, in no order."""

    bits: int
    inputs: int
    group: int
    has_act_order: bool = False

    def weight(self, outputs: int, dtype: torch.dtype) -> QuantizedWeight:
        """Values of about 1 over the root of the inputs."""
        size = self.inputs if self.group == -1 else self.group or 100
        count = -(-self.inputs // size)
        own = quantized_case(self.bits, self.inputs, outputs, count, seed=self.inputs)
        if self.group:
            groups = (torch.arange(self.inputs) // size).int()
            if self.has_act_order:
                order = torch.randperm(self.inputs, generator=torch.Generator().manual_seed(0))
                groups = groups[order]
            own = replace(own, groups=groups)
        assert own.bias is not None
        scale = 2 * self.inputs**-0.5 / 2**self.bits
        return replace(own, scales=own.scales * scale, dtype=dtype, bias=own.bias.to(dtype))


CASES = (
    Case(4, 256, 128),
    Case(4, 264, 32),
    Case(4, 520, -1),
    Case(4, 384, 64, has_act_order=True),
    Case(4, 200, 0),
    Case(8, 256, 128),
    Case(8, 264, 64, has_act_order=True),
    Case(8, 200, -1),
)
# Of groups that no plane fits into, and of fewer inputs than a tile has.
ODD = (Case(4, 400, 50), Case(8, 24, 8), Case(4, 72, -1, has_act_order=True))


def in_order(x: Tensor, weight: PackedWeight) -> Tensor:
    if weight.order is None:
        return x
    out = x.new_empty(len(x), len(weight.order))
    arrange(x, weight.order, out)
    return out
