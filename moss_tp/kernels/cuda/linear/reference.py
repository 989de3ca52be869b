"""What the kernels of this room compute, in plain torch.

Products are summed in fp64 and rounded once: what is computed beside a row hardly ever shows.
"""

import torch.nn.functional as F
from torch import Tensor

from moss_tp.kernels.cuda.linear.cut import Cut
from moss_tp.kernels.leaves import add_tree


def multiply(
    x: Tensor, weight: Tensor, bias: Tensor, plain: Tensor | None, gelu: Tensor | None
) -> None:
    y = _product(x, weight) + bias.float()
    width = 0
    if plain is not None:
        width = plain.shape[1]
        plain.copy_(y[:, :width])
    if gelu is not None:
        gelu.copy_(F.gelu(y[:, width:], approximate="tanh"))


def multiply_pieces(x: Tensor, weight: Tensor, pieces: Tensor, cut: Cut) -> None:
    inputs = cut.inputs_of_leaves(x.device)
    leaves = [_product(x[:, own], weight[:, own]) for own in inputs]
    size = cut.leaves // len(pieces)
    for index, out in enumerate(pieces):
        out.copy_(add_tree(leaves[index * size : (index + 1) * size]))


def add_pieces(pieces: Tensor, bias: Tensor, residual: Tensor | None, out: Tensor) -> None:
    total = add_tree(pieces.unbind()) + bias.float()
    out.copy_(total if residual is None else total + residual.float())


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, out: Tensor, rows: Tensor | None = None
) -> None:
    chosen = x if rows is None else x[rows]
    wide = (chosen.float(), weight.shape, weight.float(), bias.float(), eps)
    out.copy_(F.layer_norm(*wide))


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x.double(), weight.double()).float()
