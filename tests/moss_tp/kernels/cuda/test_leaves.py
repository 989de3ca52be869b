"""A block's sums to the bit on 1, 2 and 4 ranks, interpreted: dense, of 4 and 8 bits, in any order.

The second product alone, since leaves are its own: ranks have parts of its inputs, and the sums of
their leaves are added as the top of the tree.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.base import DenseWeight, Weight
from moss_tp.kernels.cuda.linear.cut import FEW_ROWS
from moss_tp.kernels.cuda.linear.norm import sum_pieces
from moss_tp.kernels.cuda.products import product_of_leaves
from moss_tp.kernels.cuda.runtime.switch import interpreted
from moss_tp.kernels.cuda.workspace import Workspace
from moss_tp.kernels.leaves import add_tree
from moss_tp.kernels.quantized import QuantizedWeight
from tests.moss_tp.kernels.cuda.linear.test_gemm import close, draw
from tests.moss_tp.kernels.cuda.ordered_dot import ordered_dot
from tests.moss_tp.kernels.cuda.quantized.weights import Case

__all__ = ["ordered_dot"]

LEAVES, DTYPE = 8, torch.float16
Pair = tuple[Weight, Weight]


def dense(width: int, inner: int) -> Pair:
    return (
        DenseWeight(draw(40, width, dtype=DTYPE)),
        DenseWeight(draw(40, inner, dtype=DTYPE, seed=1)),
    )


def gptq(bits: int, width: int, inner: int, group: int, act_order: bool = False) -> Pair:
    first, second = (Case(bits, n, group, act_order).weight(40, DTYPE) for n in (width, inner))
    return first, second


PAIRS: dict[str, Pair] = {
    "dense": dense(8 * 64, 8 * 128),
    "dense, odd": dense(8 * 24, 8 * 40),
    "4 bits": gptq(4, 8 * 128, 8 * 128, 64),
    "4 bits, cut groups": gptq(4, 8 * 48, 8 * 72, 64),
    "8 bits": gptq(8, 8 * 64, 8 * 64, 32),
    "act-order": gptq(4, 8 * 64, 8 * 128, 256, act_order=True),
    "8 bits, act-order": gptq(8, 8 * 64, 8 * 64, 256, act_order=True),
}


def part(weight: Weight, inputs: Tensor) -> Weight:
    if isinstance(weight, DenseWeight):
        return replace(weight, weight=weight.weight[:, inputs].contiguous())
    assert isinstance(weight, QuantizedWeight)
    per_word = 32 // weight.bits
    words = weight.packed[inputs[::per_word] // per_word]
    return replace(weight, packed=words.contiguous(), groups=weight.groups[inputs].contiguous())


def of_rank(pair: Pair, rank: int, size: int) -> tuple[Weight, Weight, Tensor]:
    """The rank's weights, and which inputs of both they have."""
    own = [torch.arange(w.inputs).view(size, -1)[rank] for w in pair]
    first, second = (part(w, inputs) for w, inputs in zip(pair, own, strict=True))
    return first, second, torch.cat((own[0], own[1] + pair[0].inputs))


def total(pair: Pair, x: Tensor, size: int) -> Tensor:
    sums = []
    for rank in range(size):
        out, fc_out, inputs = of_rank(pair, rank, size)
        product = product_of_leaves(out, fc_out, LEAVES // size)
        with interpreted():
            pieces = product.pieces(x[:, inputs].contiguous(), Workspace(DTYPE))
            sums.append(sum_pieces(pieces).clone())
    return add_tree(sums)


def input_of(pair: Pair, rows: int) -> Tensor:
    inputs = pair[0].inputs + pair[1].inputs
    x: Tensor = draw(rows, inputs, dtype=DTYPE, seed=2) * inputs**0.5
    return x


@pytest.mark.usefixtures("ordered_dot")
@pytest.mark.parametrize("name", PAIRS)
def test_sums_do_not_depend_on_the_number_of_ranks(name: str) -> None:
    pair = PAIRS[name]
    x = input_of(pair, 3)
    alone = total(pair, x, 1)
    whole = torch.cat([weight.dense().weight for weight in pair], 1).float()
    close(alone, x.float() @ whole.T, torch.float16)
    for size in (2, 4, 8):
        assert torch.equal(total(pair, x, size), alone), f"{size} ranks differ"


@pytest.mark.usefixtures("ordered_dot")
@pytest.mark.parametrize("name", ["dense", "4 bits", "act-order"])
def test_nor_on_the_rows_beside(name: str) -> None:
    """Many rows have fewer pieces."""
    pair = PAIRS[name]
    x = input_of(pair, FEW_ROWS + 1)
    assert torch.equal(total(pair, x, 1)[:1], total(pair, x[:1].contiguous(), 1))


@pytest.mark.usefixtures("ordered_dot")
@pytest.mark.parametrize("name", ["dense", "act-order"])
def test_two_swapped_leaves_are_noticed(name: str) -> None:
    pair = PAIRS[name]
    x = input_of(pair, 3)
    order = torch.tensor([0, 2, 1, 3, 4, 5, 6, 7])
    swapped = [torch.arange(w.inputs).view(LEAVES, -1)[order].flatten() for w in pair]
    other = (part(pair[0], swapped[0]), part(pair[1], swapped[1]))
    moved = x[:, torch.cat((swapped[0], swapped[1] + pair[0].inputs))].contiguous()
    assert not torch.equal(total(other, moved, 1), total(pair, x, 1))
