"""A weight of 4 or 8 bits in GPTQ's layout, on one rank.

    w[o, i] = scales[g, o] * (q[i, o] - zeros[g, o])        g = groups[i]

A back end packs it as it likes; the values that it multiplies by are these, in the dtype of the
model or more precisely.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, Weight
from moss_tp.kernels.words import unpack

_ROUNDED = 4096  # outputs at a time: what bounds the memory that rounding takes


@dataclass(frozen=True)
class QuantizedWeight:
    """`y = x @ w.T + bias`. Groups may come in any order and be of any size (act-order, or a rank's
    part of a larger weight), and some may have no input here."""

    packed: Tensor  # (inputs * bits / 32, outputs) int32: q, along inputs, lowest bits first
    scales: Tensor  # (groups, outputs) fp16
    zeros: Tensor  # (groups, outputs) int16: 0 to 2**bits
    groups: Tensor  # (inputs,) int32: each input's group
    bits: int  # 4 or 8
    dtype: torch.dtype  # of `dense`
    bias: Tensor | None = None  # (outputs,) in `dtype`

    @property
    def outputs(self) -> int:
        return self.packed.shape[1]

    @property
    def inputs(self) -> int:
        return self.groups.shape[0]

    def concat_inputs(self, other: "QuantizedWeight") -> "QuantizedWeight":
        """See `Weight`. Raises ValueError for one of other bits."""
        if other.bits != self.bits:
            raise ValueError(f"{other.bits} bits beside {self.bits}")
        biases = [bias for bias in (self.bias, other.bias) if bias is not None]
        return replace(
            self,
            packed=torch.cat((self.packed, other.packed)),
            scales=torch.cat((self.scales, other.scales)),
            zeros=torch.cat((self.zeros, other.zeros)),
            groups=torch.cat((self.groups, other.groups + len(self.scales))),
            bias=biases[0] + biases[1] if len(biases) == 2 else next(iter(biases), None),
        )

    def levels(self) -> Tensor:
        """q: (inputs, outputs) uint8."""
        return unpack(self.packed, self.bits)

    def dense(self) -> DenseWeight:
        """The same weight in the model's dtype: each value rounded once."""
        group = self.groups.long()
        centred = self.levels().float() - self.zeros[group]
        values = (centred * self.scales[group].float()).to(self.dtype)
        return DenseWeight(values.T.contiguous(), self.bias)


def rounded_to_8_bits(dense: DenseWeight) -> QuantizedWeight:
    """Each output's values to the nearest of 255 levels around zero, the outermost of which is the
    largest of them. Raises ValueError for inputs that are no whole number of words."""
    outputs, inputs = dense.weight.shape
    if inputs % 4:
        raise ValueError(f"{inputs} inputs do not fill words of 4 levels")
    parts = [_round_to_8_bits(rows) for rows in torch.split(dense.weight, _ROUNDED)]
    device = dense.weight.device
    return QuantizedWeight(
        packed=torch.cat([words for words, _ in parts], dim=1),
        scales=torch.cat([scales for _, scales in parts])[None],
        zeros=torch.full((1, outputs), 128, dtype=torch.int16, device=device),
        groups=torch.zeros(inputs, dtype=torch.int32, device=device),
        bits=8,
        dtype=dense.weight.dtype,
        bias=dense.bias,
    )


def _round_to_8_bits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Words `(inputs / 4, outputs)` and scales `(outputs,)` of `rows (outputs, inputs)`."""
    values = rows.float()
    scales = (values.abs().amax(dim=1) / 127).half()
    levels = (values / scales.float()[:, None]).nan_to_num(0).round_().clamp_(-127, 127)
    return (levels + 128).to(torch.uint8).view(torch.int32).T.contiguous(), scales


def concat_inputs(first: Weight, second: Weight) -> Weight:
    """`first.concat_inputs(second)`, as dense weights unless both are of one type and bits."""
    if type(first) is type(second) and _bits(first) == _bits(second):
        return first.concat_inputs(second)
    return first.dense().concat_inputs(second.dense())


def _bits(weight: Weight) -> int | None:
    return weight.bits if isinstance(weight, QuantizedWeight) else None
