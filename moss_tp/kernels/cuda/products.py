"""A weight as kernels multiply by it: dense, or of 4 or 8 bits.

Inputs of a quantized weight may be sorted by group (act-order): then x is copied in that order
first, into the workspace.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, Weight
from moss_tp.kernels.cuda.linear import gemm as dense
from moss_tp.kernels.cuda.linear.cut import Cut, num_pieces
from moss_tp.kernels.cuda.quantized import gemm as quantized
from moss_tp.kernels.cuda.quantized.arrange import arrange
from moss_tp.kernels.cuda.quantized.pack import PackedWeight, can_pack, pack
from moss_tp.kernels.cuda.workspace import Workspace
from moss_tp.kernels.quantized import QuantizedWeight, concat_inputs


class Product(Protocol):
    """Computes with a weight `(outputs, inputs)`."""

    @property
    def outputs(self) -> int: ...

    @property
    def arranged(self) -> int:
        """Columns of x as it is copied in the order of the weight; 0 where it is not."""
        ...

    def tensors(self) -> tuple[Tensor, ...]: ...

    def over(self, tensors: Sequence[Tensor]) -> Self:
        """The same weight in other tensors, of the same shapes and dtypes."""
        ...

    def multiply(
        self, x: Tensor, plain: Tensor | None, gelu: Tensor | None, workspace: Workspace
    ) -> None:
        """`x @ weight.T + bias`: the first outputs to `plain`, GELU of the others to `gelu`."""
        ...

    def pieces(self, x: Tensor, workspace: Workspace) -> Tensor:
        """`(pieces, T, outputs)` fp32: the sums of the weight's leaves, without the bias."""
        ...

    @property
    def bias(self) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class DenseProduct:
    """By a weight of the model's dtype."""

    weight: Tensor  # (outputs, inputs)
    bias: Tensor  # (outputs,)
    cut: Cut
    arranged = 0

    @classmethod
    def of(cls, weights: Sequence[Weight], cut: Cut | None = None) -> Self:
        """Of their outputs one after the other. Without a `cut` it is one leaf."""
        own = [weight.dense() for weight in weights]
        return cls(
            torch.cat([weight.weight for weight in own]) if own[1:] else own[0].weight.detach(),
            torch.cat([bias_of(weight) for weight in own]),
            cut or Cut(1, own[0].inputs),
        )

    @property
    def outputs(self) -> int:
        return len(self.bias)

    def tensors(self) -> tuple[Tensor, ...]:
        return self.weight, self.bias

    def over(self, tensors: Sequence[Tensor]) -> Self:
        weight, bias = tensors
        return replace(self, weight=weight, bias=bias)

    def multiply(
        self, x: Tensor, plain: Tensor | None, gelu: Tensor | None, workspace: Workspace
    ) -> None:
        dense.multiply(x, self.weight, self.bias, plain, gelu)

    def pieces(self, x: Tensor, workspace: Workspace) -> Tensor:
        out = _pieces(x, self.cut.leaves, self.outputs, workspace)
        dense.multiply_pieces(x, self.weight, out, self.cut)
        return out


@dataclass(frozen=True, eq=False)
class QuantizedProduct:
    """By a weight of 4 or 8 bits."""

    weight: PackedWeight
    bias: Tensor  # (outputs,)

    @classmethod
    def of(cls, weight: QuantizedWeight, cut: Cut | None = None) -> Self:
        return cls(pack(weight, cut), bias_of(weight))

    @property
    def outputs(self) -> int:
        return self.weight.outputs

    @property
    def arranged(self) -> int:
        return 0 if self.weight.order is None else self.weight.inputs

    def tensors(self) -> tuple[Tensor, ...]:
        order = () if self.weight.order is None else (self.weight.order,)
        return self.weight.words, self.weight.scales, self.bias, *order

    def over(self, tensors: Sequence[Tensor]) -> Self:
        words, scales, bias, *order = tensors
        weight = replace(self.weight, words=words, scales=scales, order=order[0] if order else None)
        return replace(self, weight=weight, bias=bias)

    def multiply(
        self, x: Tensor, plain: Tensor | None, gelu: Tensor | None, workspace: Workspace
    ) -> None:
        own = self._in_order(x, workspace)
        quantized.multiply(own, self.weight, self.bias, plain, gelu)

    def pieces(self, x: Tensor, workspace: Workspace) -> Tensor:
        out = _pieces(x, self.weight.cut.leaves, self.outputs, workspace)
        quantized.multiply_pieces(self._in_order(x, workspace), self.weight, out)
        return out

    def _in_order(self, x: Tensor, workspace: Workspace) -> Tensor:
        if self.weight.order is None:
            return x
        out = workspace.rows("arranged", x, self.arranged)
        arrange(x, self.weight.order, out)
        return out


def product_of(*weights: Weight) -> tuple[Product, ...]:
    """Of weights of the same input, outputs one after the other: one product where they can share
    one, else one each."""
    packable = [w for w in weights if isinstance(w, QuantizedWeight) and can_pack(w)]
    if not packable:
        return (DenseProduct.of(weights),)
    first = packable[0]
    is_alike = all(w.bits == first.bits and torch.equal(w.groups, first.groups) for w in packable)
    if is_alike and len(packable) == len(weights):
        return (QuantizedProduct.of(_stacked(packable)),)
    return tuple(map(_single_product, weights))


def product_of_leaves(out: Weight, fc_out: Weight, leaves: int) -> Product:
    """Of `[x | y]`, out times x and fc_out times y. Raises ValueError where leaves do not divide
    both inputs."""
    if out.inputs % leaves or fc_out.inputs % leaves:
        raise ValueError(f"{leaves} leaves of {out.inputs} and {fc_out.inputs} inputs")
    cut = Cut(leaves, out.inputs // leaves, fc_out.inputs // leaves)
    return _single_product(concat_inputs(out, fc_out), cut)


def _single_product(weight: Weight, cut: Cut | None = None) -> Product:
    if isinstance(weight, QuantizedWeight) and can_pack(weight, cut):
        return QuantizedProduct.of(weight, cut)
    return DenseProduct.of((weight,), cut)


def bias_of(weight: Weight) -> Tensor:
    """The weight's bias; zeros where it has none, which change no sum."""
    assert isinstance(weight, DenseWeight | QuantizedWeight)
    if weight.bias is not None:
        return weight.bias.detach()
    like = weight.weight if isinstance(weight, DenseWeight) else weight.scales
    dtype = like.dtype if isinstance(weight, DenseWeight) else weight.dtype
    return like.new_zeros(weight.outputs, dtype=dtype)


def _stacked(weights: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Outputs one after the other, of the same groups."""
    if len(weights) == 1:
        return weights[0]
    return replace(
        weights[0],
        packed=torch.cat([weight.packed for weight in weights], 1),
        scales=torch.cat([weight.scales for weight in weights], 1),
        zeros=torch.cat([weight.zeros for weight in weights], 1),
        bias=torch.cat([bias_of(weight) for weight in weights]),
    )


def _pieces(x: Tensor, leaves: int, outputs: int, workspace: Workspace) -> Tensor:
    shape = (num_pieces(leaves, len(x)), len(x), outputs)
    return workspace.take("pieces", shape, x, torch.float32)
