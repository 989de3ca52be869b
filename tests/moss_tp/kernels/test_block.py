"""Whole blocks: packed ones against the eager one, on the same weights in fp32.

Tolerance: outputs of size ~3. In fp32 2e-5. Over a bf16 cache each stored key and value is off by
up to 2**-9 of itself, and what a product takes in bf16 too: 2e-2.
"""

import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.base import BlockWeights, DenseWeight
from moss_tp.kernels.cpu import attention
from moss_tp.kernels.cpu.block import PanelBlock, PanelChain
from moss_tp.kernels.cpu.onednn import OneDnnLinear
from moss_tp.kernels.cpu.products import Product
from moss_tp.kernels.reference import attention as reference
from moss_tp.kernels.reference.block import EagerBlock, PlainLinear
from tests.moss_tp.kernels.paged_case import Case, Shape, make_case
from tests.moss_tp.kernels.test_linear import PRODUCTS

HIDDEN, INNER = 70, 90
LENS = [(1, 7), (12, 30), (2, 9)]


def weights(
    shape: Shape, dtype: torch.dtype, adds_residual: bool = True, seed: int = 2
) -> BlockWeights:
    random = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return (torch.randn(size, generator=random) * float(size[-1] ** -0.5)).to(dtype)

    width = shape.heads * shape.head_dim
    return BlockWeights(
        norm=(1 + draw(HIDDEN), draw(HIDDEN)),
        eps=1e-5,
        qkv=DenseWeight(draw(3 * width, HIDDEN)),
        fc_in=DenseWeight(draw(INNER, HIDDEN), draw(INNER)),
        out=DenseWeight(draw(HIDDEN, width)),
        fc_out=DenseWeight(draw(HIDDEN, INNER), draw(HIDDEN) if adds_residual else None),
        head_dim=shape.head_dim,
        adds_residual=adds_residual,
    )


def widened(own: DenseWeight) -> DenseWeight:
    return DenseWeight(own.weight.float(), None if own.bias is None else own.bias.float())


def expected(own: BlockWeights, x: Tensor, case: Case) -> Tensor:
    wide = BlockWeights(
        norm=(own.norm[0].float(), own.norm[1].float()),
        eps=own.eps,
        qkv=widened(own.qkv),
        fc_in=widened(own.fc_in),
        out=widened(own.out),
        fc_out=widened(own.fc_out),
        head_dim=own.head_dim,
        adds_residual=own.adds_residual,
    )
    cache = (case.cache[0].float(), case.cache[1].float())
    block = EagerBlock(wide, PlainLinear, reference.attend)
    return block(x, case.rotary, cache, case.plan)


def input_of(case: Case) -> Tensor:
    size = (len(case.qkv), HIDDEN)
    return torch.randn(size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("adds_residual", [True, False])
def test_panels(adds_residual: bool, product: Product) -> None:
    shape = Shape()
    case = make_case(LENS, torch.bfloat16, shape)
    own, x = weights(shape, torch.bfloat16, adds_residual), input_of(case)
    reference_out = expected(own, x, case)
    out = PanelBlock(own, product)(x, case.rotary, case.cache, case.plan)
    torch.testing.assert_close(out, reference_out, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("adds_residual", [True, False])
def test_onednn(adds_residual: bool) -> None:
    shape = Shape()
    case = make_case(LENS, torch.float32, shape)
    own, x = weights(shape, torch.float32, adds_residual), input_of(case)
    reference_out = expected(own, x, case)
    block = EagerBlock(own, OneDnnLinear, attention.attend)
    out = block(x, case.rotary, case.cache, case.plan)
    torch.testing.assert_close(out, reference_out, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_chain_is_its_blocks_in_turn(count: int) -> None:
    """Each with weights and a cache of its own, to the bit; on any number of threads, one after the
    other, and on more than there are tasks."""
    shape = Shape()
    cases = [make_case(LENS, torch.bfloat16, shape) for _ in range(count)]
    blocks = [PanelBlock(weights(shape, torch.bfloat16, seed=i)) for i in range(count)]
    x, rotary, plan = input_of(cases[0]), cases[0].rotary, cases[0].plan
    layers = [case.cache for case in cases]

    def in_turn(blocks: list[PanelBlock]) -> Tensor:
        """Each by a program of its own."""
        out = x
        for block, cache in zip(blocks, layers, strict=True):
            out = block(out, rotary, cache, replace(plan, prepared={}))
        return out

    expected_out, before = in_turn(blocks), torch.get_num_threads()
    chain = PanelChain.of(blocks)
    try:
        for num_threads in (1, 3, 3, 40):
            torch.set_num_threads(num_threads)
            assert torch.equal(chain(x, rotary, layers, plan), expected_out)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(in_turn(blocks[::-1]), expected_out) == (count == 1)


def test_two_engines_in_one_process() -> None:
    """Blocks that run at the same time, each from a thread of its own, do not meet."""
    shape = Shape()
    block = PanelBlock(weights(shape, torch.bfloat16))
    cases = [make_case(LENS[: n + 1], torch.bfloat16, shape) for n in range(3)]
    single = [block(input_of(c), c.rotary, c.cache, c.plan) for c in cases]
    differing: list[int] = []

    def repeat(index: int) -> None:
        case = cases[index]
        for _ in range(30):
            out = block(input_of(case), case.rotary, case.cache, case.plan)
            if not torch.equal(out, single[index]):
                differing.append(index)

    threads = [threading.Thread(target=repeat, args=(index,)) for index in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not differing
