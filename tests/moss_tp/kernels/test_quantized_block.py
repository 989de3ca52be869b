"""Blocks whose weights are quantized, some or all of them, against the eager one on `dense()`.

Tolerances as in `test_block`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from moss_tp.kernels.base import BlockWeights, DenseWeight
from moss_tp.kernels.cpu.attention.operands import best_operands
from moss_tp.kernels.cpu.chain import ChainOfChains, PanelBlock, PanelChain, chain_of
from moss_tp.kernels.quantized import QuantizedWeight
from tests.moss_tp.kernels.cells import to_cells
from tests.moss_tp.kernels.paged_case import AttentionShape, make_case
from tests.moss_tp.kernels.quantized_case import quantized_case
from tests.moss_tp.kernels.test_block import LENS, TOLERANCES, expected, result, widened

SHAPE = AttentionShape(heads=4)  # a width of whole words
HIDDEN, INNER, WIDTH = 72, 96, SHAPE.heads * SHAPE.head_dim


def quantized(
    bits: int, outputs: int, inputs: int, dtype: torch.dtype, seed: int, size: int | None = 24
) -> QuantizedWeight:
    """With weights of about `inputs ** -0.5`. Groups come in no order where `size` is None."""
    drawn = quantized_case(bits, inputs, outputs, 4, seed)
    scales = drawn.scales * (inputs**-0.5 / 2 ** (bits - 1))
    weight = replace(drawn, scales=scales, dtype=dtype, bias=None)
    if size is None:
        return weight
    return replace(weight, groups=(torch.arange(inputs) // size).int() % 4)


def dense(outputs: int, inputs: int, dtype: torch.dtype) -> DenseWeight:
    numbers = torch.Generator().manual_seed(outputs)
    drawn = torch.randn(outputs, inputs, generator=numbers) * inputs**-0.5
    return DenseWeight(drawn.to(dtype))


def weights(bits: int, dtype: torch.dtype, **others: Any) -> BlockWeights:
    numbers = torch.Generator().manual_seed(1)
    bias = torch.randn(INNER, generator=numbers).to(dtype)
    own = BlockWeights(
        norm=(torch.ones(HIDDEN, dtype=dtype), torch.zeros(HIDDEN, dtype=dtype)),
        eps=1e-5,
        qkv=quantized(bits, 3 * WIDTH, HIDDEN, dtype, seed=1),
        fc_in=replace(quantized(bits, INNER, HIDDEN, dtype, seed=2), bias=bias),
        out=quantized(bits, HIDDEN, WIDTH, dtype, seed=3),
        fc_out=replace(quantized(bits, HIDDEN, INNER, dtype, seed=4), bias=bias[:HIDDEN]),
        head_dim=SHAPE.head_dim,
        leaves=4,
    )
    return replace(own, **others)


def bf16(**others: Any) -> BlockWeights:
    return weights(4, torch.bfloat16, **others)


BF16 = torch.bfloat16
BLOCKS: dict[str, Callable[[], BlockWeights]] = {
    "4 bits": bf16,
    "8 bits": lambda: weights(8, BF16),
    "4 bits in fp16": lambda: weights(4, torch.float16),
    "8 bits in fp32": lambda: weights(8, torch.float32),
    "act-order": lambda: bf16(
        qkv=quantized(4, 3 * WIDTH, HIDDEN, BF16, 1, None),
        fc_in=quantized(4, INNER, HIDDEN, BF16, 2, None),
        fc_out=quantized(4, HIDDEN, INNER, BF16, 3, None),
    ),
    "4 bits beside 8": lambda: bf16(
        fc_in=quantized(8, INNER, HIDDEN, BF16, 2), fc_out=quantized(8, HIDDEN, INNER, BF16, 4)
    ),
    "dense modules": lambda: bf16(
        qkv=dense(3 * WIDTH, HIDDEN, BF16), fc_out=dense(HIDDEN, INNER, BF16)
    ),
}


def dense_block(own: BlockWeights) -> BlockWeights:
    names = ("qkv", "fc_in", "out", "fc_out")
    exact: dict[str, Any] = {}
    for name in names:
        weight = getattr(own, name)
        is_dense = isinstance(weight, DenseWeight)
        wide = weight if is_dense else replace(weight, dtype=torch.float32).dense()
        exact[name] = widened(wide)
    return replace(own, **exact)


@pytest.mark.parametrize("name", BLOCKS)
def test_equals_the_eager_block(name: str) -> None:
    own = BLOCKS[name]()
    dtype = own.norm[0].dtype
    case = make_case(LENS, dtype, SHAPE)
    x = torch.randn(len(case.qkv), HIDDEN, generator=torch.Generator().manual_seed(3))
    reference = expected(dense_block(own), x, case)
    cells = to_cells(case.cache, best_operands(dtype == BF16, SHAPE.head_dim).per_step)
    out = result(PanelBlock(own), x, case, cells)
    torch.testing.assert_close(out, reference, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


def test_weights_that_share_an_order_are_one_product() -> None:
    packed = {name: PanelBlock(make()).packed for name, make in BLOCKS.items()}
    assert {name: len(block.first) for name, block in packed.items()} == {
        "4 bits": 1,
        "8 bits": 1,
        "4 bits in fp16": 1,
        "8 bits in fp32": 1,
        "act-order": 2,
        "4 bits beside 8": 2,
        "dense modules": 2,
    }


@pytest.mark.parametrize(
    ("names", "is_uniform"),
    [(["4 bits"] * 3, True), (["4 bits", "4 bits", "dense modules", "act-order"], False)],
)
def test_a_chain_equals_its_blocks_in_sequence(names: list[str], is_uniform: bool) -> None:
    blocks = [PanelBlock(BLOCKS[name]()) for name in names]
    cases = [make_case(LENS, BF16, SHAPE) for _ in blocks]
    out = x = torch.randn(len(cases[0].qkv), HIDDEN, generator=torch.Generator().manual_seed(3))
    rotary, plan = cases[0].rotary, cases[0].plan
    for block, case in zip(blocks, cases, strict=True):
        out = block.finish(block(out, rotary, case.cache, plan), out)
    chain = chain_of(blocks)
    assert isinstance(chain, PanelChain if is_uniform else ChainOfChains)
    layers = tuple(case.cache for case in cases)
    for _ in range(2):
        assert torch.equal(chain(x, rotary, layers, plan), out)
