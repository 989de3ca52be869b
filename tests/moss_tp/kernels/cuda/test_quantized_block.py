"""CUDA's blocks and head with weights of 4 and 8 bits, against the eager block on their values.

Tolerance as in `test_block` for fp16.
"""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moss_tp.errors import StepMemoryError
from moss_tp.kernels.base import BlockWeights, DenseWeight
from moss_tp.kernels.cuda.block import CudaBlock
from moss_tp.kernels.cuda.head import CudaLinear
from moss_tp.kernels.cuda.products import DenseProduct, QuantizedProduct
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted
from moss_tp.kernels.cuda.workspace import Workspace
from moss_tp.kernels.quantized import QuantizedWeight
from tests.moss_tp.kernels.cuda.attention.paged import SHAPE, step_of
from tests.moss_tp.kernels.cuda.quantized.weights import Case
from tests.moss_tp.kernels.paged_case import Case as Attention
from tests.moss_tp.kernels.paged_case import make_case
from tests.moss_tp.kernels.test_block import expected

HIDDEN, INNER = 64, 96
WIDTH = SHAPE.heads * SHAPE.head_dim
DTYPE = torch.float16
TOLERANCE = 6e-3
LENS = [(1, 7), (18, 30)]


def quantized(outputs: int, inputs: int, bits: int = 4, order: int = 0) -> QuantizedWeight:
    """Groups of 32, in an order of their own for each `order` but 0."""
    own = Case(bits, inputs, 32).weight(outputs, DTYPE)
    shuffled = torch.randperm(inputs, generator=torch.Generator().manual_seed(order))
    return replace(own, groups=own.groups[shuffled]) if order else own


def block_weights(order: int = 0, of_inner: int = 0, bits: int = 4) -> BlockWeights:
    """qkv and fc_in in one `order` unless fc_in has one `of_inner`; fc_in and fc_out of `bits`."""
    return BlockWeights(
        norm=(torch.ones(HIDDEN, dtype=DTYPE), torch.full((HIDDEN,), 0.1, dtype=DTYPE)),
        eps=1e-5,
        qkv=quantized(3 * WIDTH, HIDDEN, order=order),
        fc_in=quantized(INNER, HIDDEN, bits, of_inner or order),
        out=quantized(HIDDEN, WIDTH, order=order),
        fc_out=quantized(HIDDEN, INNER, bits, order),
        head_dim=SHAPE.head_dim,
        leaves=1,
    )


def dense(own: BlockWeights) -> BlockWeights:
    names = ("qkv", "fc_in", "out", "fc_out")
    return replace(own, **{name: getattr(own, name).dense() for name in names})


def run(block: CudaBlock, x: Tensor, case: Attention) -> Tensor:
    step = step_of(case)
    return block(x, step.rotary, step.cache, step.plan).clone()


def input_of(case: Attention) -> Tensor:
    size = (len(case.qkv), HIDDEN)
    return torch.randn(size, generator=torch.Generator().manual_seed(3)).to(DTYPE)


WAYS = {
    "in order": (block_weights(), 1, 0),
    "act-order": (block_weights(order=1), 1, 2),
    "two orders": (block_weights(order=1, of_inner=2), 2, 3),
    "8 bits beside 4": (block_weights(bits=8), 2, 0),
}


@pytest.mark.parametrize("name", ["reference", "interpreted"])
@pytest.mark.parametrize("way", WAYS)
def test_blocks(way: str, name: str) -> None:
    own, gemms, copies = WAYS[way]
    case = make_case(LENS, DTYPE, SHAPE)
    x = input_of(case)
    wanted = expected(dense(own), x.float(), case)
    block = CudaBlock.pack(own, Workspace(DTYPE))
    with interpreted() if name == "interpreted" else nullcontext(), counted_launches() as counts:
        out = run(block, x, case).float()
    torch.testing.assert_close(out, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    assert not torch.allclose(out, wanted + 0.05, atol=TOLERANCE, rtol=TOLERANCE)
    assert (counts["gemm"], counts["gemm_pieces"], counts["arrange"]) == (gemms, 1, copies)


@pytest.mark.parametrize("dense_first", ["qkv", "fc_in"])
def test_dense_beside_quantized(dense_first: str) -> None:
    """A second product of one kind takes both as dense weights; first ones are one each."""
    own = block_weights()
    replaced = {name: getattr(own, name).dense() for name in ("out", dense_first)}
    mixed = replace(own, **replaced)
    case = make_case(LENS, DTYPE, SHAPE)
    x, block = input_of(case), CudaBlock.pack(mixed, Workspace(DTYPE))
    kinds = {"qkv": (DenseProduct, QuantizedProduct), "fc_in": (QuantizedProduct, DenseProduct)}
    assert tuple(map(type, block.packed.first)) == kinds[dense_first]
    assert isinstance(block.packed.second, DenseProduct)
    wanted = expected(dense(own), x.float(), case)
    out = run(block, x, case).float()
    torch.testing.assert_close(out, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    assert not torch.allclose(out, wanted + 0.05, atol=TOLERANCE, rtol=TOLERANCE)


def test_weights_in_other_storage() -> None:
    own = block_weights(order=1, of_inner=2)
    case = make_case(LENS, DTYPE, SHAPE)
    x, block = input_of(case), CudaBlock.pack(own, Workspace(DTYPE))
    moved = block.over([tensor.clone() for tensor in block.tensors()])
    wanted = run(block, x, case)
    assert torch.equal(run(moved, x, case), wanted)
    for tensor in moved.tensors():
        kept = tensor.clone()
        tensor.zero_() if tensor.is_floating_point() else tensor.bitwise_right_shift_(1)
        assert not torch.equal(run(moved, x, case), wanted)
        tensor.copy_(kept)
    assert torch.equal(run(moved, x, case), wanted)


@pytest.mark.parametrize("order", [0, 1])
def test_what_is_reserved_suffices(order: int) -> None:
    case = make_case(LENS, DTYPE, SHAPE)
    step, workspace = step_of(case), Workspace(DTYPE)
    block = CudaBlock.pack(block_weights(order), workspace)
    head = CudaLinear(quantized(48, HIDDEN, order=order), False, workspace)
    limits = replace(step.limits(), max_logit_rows=2)
    workspace.reserve(limits, torch.device("cpu"))
    taken = {name: buffer.data_ptr() for name, buffer in workspace.buffers.items()}
    x = block(input_of(case), step.rotary, step.cache, step.plan)
    assert head(x[:2]).shape == (2, 48)
    assert {name: buffer.data_ptr() for name, buffer in workspace.buffers.items()} == taken
    assert bool(workspace.buffers["arranged"].nbytes) == bool(order)
    with pytest.raises(StepMemoryError):
        head(x[:3])


@pytest.mark.parametrize("order", [0, 1])
def test_a_head(order: int) -> None:
    weight = quantized(48, HIDDEN, bits=8, order=order)
    x = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(0)).to(DTYPE)
    head = CudaLinear(weight, False, Workspace(DTYPE))
    own = weight.dense()
    assert own.bias is not None
    wanted = torch.nn.functional.linear(x.float(), own.weight.float(), own.bias.float())
    torch.testing.assert_close(head(x).float(), wanted, atol=2e-3, rtol=2e-3)
    as_fp32 = CudaLinear(replace(weight, dtype=torch.float32), False, Workspace(torch.float32))
    assert isinstance(as_fp32._product, DenseProduct)


def test_what_is_packed_takes_what_it_should() -> None:
    """4.25 bits a value at groups of 128: words, and a scale and a zero in 32."""
    weight = Case(4, 256, 128).weight(64, DTYPE)
    product = QuantizedProduct.of(weight)
    num_bytes = sum(t.nbytes for t in product.tensors()) - product.bias.nbytes
    assert num_bytes * 8 == 4.25 * 256 * 64
    assert isinstance(weight.dense(), DenseWeight)
