"""CUDA's blocks, by their references and interpreted, against the eager block in fp32.

Tolerance: outputs of size ~3. In fp32 2e-5. Activations of a block are rounded to its dtype four
times, each by 2**-9 of itself in bf16 and 2**-12 in fp16 at most.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.base import BlockWeights
from moss_tp.kernels.cuda.block import CudaBlock, CudaChain, PackedBlock
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted
from moss_tp.kernels.cuda.workspace import Workspace
from tests.moss_tp.kernels.cuda.attention.paged import SHAPE, Step, step_of
from tests.moss_tp.kernels.cuda.ordered_dot import ordered_dot
from tests.moss_tp.kernels.paged_case import make_case
from tests.moss_tp.kernels.test_block import expected, input_of, weights

__all__ = ["ordered_dot"]

LENS = [(1, 7), (18, 30), (2, 140)]
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 5e-2, torch.float16: 6e-3}


@contextmanager
def route(name: str) -> Iterator[None]:
    with interpreted() if name == "interpreted" else nullcontext():
        yield


def block_of(own: BlockWeights) -> CudaBlock:
    return CudaBlock.pack(own, Workspace(own.norm[0].dtype))


def run(block: CudaBlock, x: Tensor, step: Step) -> Tensor:
    own = block(x, step.rotary, step.cache, step.plan)
    assert own.dtype == torch.float32
    return block.finish(own, x).clone()


@pytest.mark.parametrize("name", ["reference", "interpreted"])
@pytest.mark.parametrize("leaves", [1, 2])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_blocks(dtype: torch.dtype, leaves: int, name: str) -> None:
    case, own = make_case(LENS, dtype, SHAPE), weights(SHAPE, dtype, leaves)
    x = input_of(case).to(dtype)
    wanted = expected(own, x.float(), case)
    with route(name):
        out = run(block_of(own), x, step_of(case)).float()
    torch.testing.assert_close(out, wanted, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])
    assert not torch.allclose(out, wanted + 0.2, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


@pytest.mark.parametrize("name", ["reference", "interpreted"])
def test_a_chain_has_the_bits_of_its_blocks_in_sequence(name: str) -> None:
    """Each with its own weights and cache, in at most six launches."""
    dtype, lens = torch.float16, [(1, 7), (2, 140)]
    workspace, case = Workspace(dtype), make_case(lens, dtype, SHAPE)
    blocks = [CudaBlock.pack(weights(SHAPE, dtype, 2, seed), workspace) for seed in range(3)]
    steps = [step_of(case) for _ in blocks]
    x = input_of(case).to(dtype)
    out = x
    with route(name):
        for block, step in zip(blocks, steps, strict=True):
            out = run(block, out, step)
        again = [step_of(case) for _ in blocks]
        chain = CudaChain(blocks)
        with counted_launches() as counts:
            chained = chain(x, steps[0].rotary, [step.cache for step in again], steps[0].plan)
    assert torch.equal(chained, out)
    for step, other in zip(steps, again, strict=True):
        assert torch.equal(step.cache.k.view(torch.int16), other.cache.k.view(torch.int16))
    assert counts["norm"] == 1
    assert counts["gemm"] == counts["gemm_pieces"] == counts["add_pieces"] == len(blocks)
    assert counts.total() <= 6 * len(blocks) + 1
    turned = CudaChain(blocks[::-1])(x, case.rotary, [s.cache for s in steps], steps[0].plan)
    assert not torch.equal(turned, out)


@pytest.mark.usefixtures("ordered_dot")
def test_a_row_of_a_block_has_the_same_bits_alone() -> None:
    """The last row, decoded after the others and computed with them."""
    dtype, lens = torch.float16, [(1, 7), (18, 30), (1, 140)]
    own, case = weights(SHAPE, dtype), make_case(lens, dtype, SHAPE)
    step, x = step_of(case), input_of(case).to(dtype)
    plan = step.plan
    alone = replace(
        plan,
        positions=plan.positions[-1:],
        slots=plan.slots[-1:],
        block_tables=plan.block_tables[-1:],
        short_tiles=torch.tensor([[0, 0, 1]], dtype=torch.int32),
        long_tiles=plan.long_tiles[:0],
    )
    with interpreted():
        among = run(block_of(own), x, step)[-1:]
        single = run(block_of(own), x[-1:].clone(), replace(step, plan=alone))
    assert torch.equal(single, among)


def test_weights_in_other_storage() -> None:
    dtype = torch.float32
    case, own = make_case(LENS, dtype, SHAPE), weights(SHAPE, dtype)
    x, block = input_of(case), block_of(own)
    moved = block.over([tensor.clone() for tensor in block.tensors()])
    wanted = run(block, x, step_of(case))
    assert torch.equal(run(moved, x, step_of(case)), wanted)
    for tensor in moved.tensors():
        kept = tensor.clone()
        tensor.zero_()
        assert not torch.equal(run(moved, x, step_of(case)), wanted)
        tensor.copy_(kept)
    assert torch.equal(run(block, x, step_of(case)), wanted)


def test_each_weight_is_packed_once() -> None:
    own = weights(SHAPE, torch.bfloat16)
    tensors = PackedBlock.of(own).tensors()
    matrices = [own.qkv, own.fc_in, own.out, own.fc_out]
    packed = sum(tensor.numel() for tensor in tensors if tensor.dim() == 2)
    assert packed == sum(w.outputs * w.inputs for w in matrices)
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert all(tensor.is_contiguous() for tensor in tensors)
