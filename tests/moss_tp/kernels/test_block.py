"""Whole blocks: packed ones against the eager one, on the same weights in fp32.

Tolerance: outputs of size ~3. In fp32 2e-5. With a bf16 cache each stored key and value is off by
up to 2**-9 of itself, and so are bf16 inputs of a product: 2e-2. With an fp16 cache it is 2**-12:
2e-3.
"""

import threading
from collections.abc import Hashable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.base import BlockKernel, BlockWeights, DenseWeight, LayerCache, Weight
from moss_tp.kernels.cpu.attention.operands import best_operands
from moss_tp.kernels.cpu.chain import (
    ROWS_OF_LAYOUT,
    BlockFactory,
    BlockProgram,
    PanelBlock,
    chain_of,
)
from moss_tp.kernels.cpu.linear.pack import weight_dtype
from moss_tp.kernels.cpu.runtime.pool import ProgramPool
from moss_tp.kernels.reference.attention import attend as reference_attend
from moss_tp.kernels.reference.block import EagerBlock
from moss_tp.kernels.reference.linear import PlainLinear
from moss_tp.kernels.rotary import Rotary
from tests.moss_tp.kernels.cells import to_cells
from tests.moss_tp.kernels.paged_case import AttentionShape, Case, make_case
from tests.moss_tp.kernels.test_linear import MUL_ADDS

HIDDEN, INNER = 70, 96
LENS = [(1, 7), (12, 30), (2, 9)]
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
# One for all steps, as in a model: programs hold its address.
ROTARY = Rotary.make(AttentionShape.rotary_dim, 1000, torch.device("cpu"))


class CountingPool(ProgramPool[BlockProgram]):
    """Counts the programs that were run again."""

    num_hits = 0

    def take(self, key: Hashable, num_rows: int) -> BlockProgram | None:
        program = super().take(key, num_rows)
        self.num_hits += program is not None
        return program


def next_step(lens: list[tuple[int, int]], shape: AttentionShape | None = None) -> Case:
    """A step of the model that has ROTARY."""
    return replace(make_case(lens, torch.bfloat16, shape), rotary=ROTARY)


def weights(
    shape: AttentionShape, dtype: torch.dtype, leaves: int = 1, seed: int = 2
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
        fc_out=DenseWeight(draw(HIDDEN, INNER), draw(HIDDEN)),
        head_dim=shape.head_dim,
        leaves=leaves,
    )


def widened(own: Weight) -> DenseWeight:
    assert isinstance(own, DenseWeight)
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
        leaves=own.leaves,
    )
    cache = (case.cache[0].float(), case.cache[1].float())
    block = EagerBlock(wide, PlainLinear, reference_attend)
    return block.finish(block(x, case.rotary, cache, case.plan), x)


def result(block: BlockKernel, x: Tensor, case: Case, cache: LayerCache = None) -> Tensor:
    """Of a block that is alone."""
    own = block(x, case.rotary, cache or case.cache, case.plan)
    return block.finish(own, x)


def input_of(case: Case) -> Tensor:
    size = (len(case.qkv), HIDDEN)
    return torch.randn(size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", MUL_ADDS)
@pytest.mark.parametrize("leaves", [1, 2, 8])
def test_panels(leaves: int, name: str) -> None:
    shape, dtype = AttentionShape(heads=3 if leaves == 1 else leaves), weight_dtype(MUL_ADDS[name])
    case = make_case(LENS, dtype, shape)
    own, x = weights(shape, dtype, leaves), input_of(case)
    reference_out = expected(own, x, case)
    cells = to_cells(case.cache, best_operands(dtype == torch.bfloat16, shape.head_dim).per_step)
    out = result(PanelBlock(own, MUL_ADDS[name]), x, case, cells)
    torch.testing.assert_close(out, reference_out, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_chain_equals_its_blocks_in_sequence(count: int) -> None:
    """To the bit, each block with its own weights and cache; on any number of threads, even more
    than there are tasks."""
    shape = AttentionShape(heads=4)
    cases = [make_case(LENS, torch.bfloat16, shape) for _ in range(count)]
    blocks = [PanelBlock(weights(shape, torch.bfloat16, leaves=2, seed=i)) for i in range(count)]
    x, rotary, plan = input_of(cases[0]), cases[0].rotary, cases[0].plan
    layers = tuple(case.cache for case in cases)

    def in_sequence(blocks: list[PanelBlock]) -> Tensor:
        out = x
        for block, cache in zip(blocks, layers, strict=True):
            out = block.finish(block(out, rotary, cache, plan), out)
        return out

    expected_out, before = in_sequence(blocks), torch.get_num_threads()
    chain = chain_of(blocks)
    try:
        for num_threads in (1, 3, 3, 40):
            torch.set_num_threads(num_threads)
            assert torch.equal(chain(x, rotary, layers, plan), expected_out)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(in_sequence(blocks[::-1]), expected_out) == (count == 1)


def test_blocks_that_share_programs_equal_blocks_that_do_not() -> None:
    """A program is built for one block and run for another, with other weights and another
    cache."""
    shape, pool = AttentionShape(), CountingPool()
    drawn = [weights(shape, torch.bfloat16, seed=i) for i in range(3)]
    sharing = [PanelBlock(own, pool=pool) for own in drawn]
    for _ in range(2):
        for own, block in zip(drawn, sharing, strict=True):
            case, alone = (next_step(LENS) for _ in range(2))
            x = input_of(case)
            out = block(x, case.rotary, case.cache, case.plan)
            assert torch.equal(out, PanelBlock(own)(x, alone.rotary, alone.cache, alone.plan))
            assert torch.equal(case.cache[0], alone.cache[0])
    assert pool.num_hits == 2 * len(drawn) - 1


def with_inner(inner: int) -> BlockWeights:
    own = weights(AttentionShape(), torch.bfloat16)
    fc_in, fc_out = DenseWeight(own.fc_in.dense().weight[:inner]), own.fc_out.dense()
    return replace(own, fc_in=fc_in, fc_out=DenseWeight(fc_out.weight[:, :inner].contiguous()))


@pytest.mark.parametrize("is_made_by_factory", [True, False])
def test_blocks_of_many_layouts_keep_a_program_each(is_made_by_factory: bool) -> None:
    """More rows over all of them than a pool has by itself."""
    pool = CountingPool(max_rows=2 * 21)
    factory = BlockFactory(pool)
    drawn = [with_inner(inner) for inner in (90, 88, 90, 86)]
    blocks = [factory(own) if is_made_by_factory else PanelBlock(own, pool=pool) for own in drawn]
    assert pool.max_rows == (3 * ROWS_OF_LAYOUT if is_made_by_factory else 42)
    case = next_step([(21, 30)])
    for _ in range(2):
        for block in blocks:
            block(input_of(case), case.rotary, case.cache, case.plan)
    assert (pool.num_hits == 5) == is_made_by_factory


# Two steps each, and whether the second runs the first's program.
STEPS = {
    "decodes": ([(1, 7), (1, 20)], [(1, 30), (1, 2)], True),
    "longer tables": ([(1, 7), (1, 20)], [(1, 90), (1, 2)], True),
    "more splits": ([(1, 7), (1, 20)], [(1, 700), (1, 2)], False),
    "as many rows, drafted": ([(1, 7), (1, 20)], [(2, 30)], False),
    "prefills": ([(12, 30), (1, 7)], [(12, 55), (1, 5)], True),
    "other sequences, one tile": ([(12, 30), (1, 7)], [(1, 5), (12, 55)], True),
    "another cut": ([(12, 30), (1, 7)], [(2, 5), (11, 55)], False),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_kept_program_computes_the_next_step(name: str) -> None:
    """With another input, other positions, slots and tables, and another cache, to the bit."""
    own, pool = weights(AttentionShape(), torch.bfloat16), CountingPool()
    block = PanelBlock(own, pool=pool)
    first, second, is_kept = STEPS[name]
    for lens in (first, second, first):
        case, alone = (next_step(lens) for _ in range(2))
        x = input_of(case)
        out = block(x, case.rotary, case.cache, case.plan)
        assert torch.equal(out, PanelBlock(own)(x, alone.rotary, alone.cache, alone.plan))
        assert torch.equal(case.cache[1], alone.cache[1])
    assert pool.num_hits == (2 if is_kept else 1)


def test_models_with_other_rotary_tables_share_no_program() -> None:
    own, pool = weights(AttentionShape(), torch.bfloat16), CountingPool()
    block = PanelBlock(own, pool=pool)
    for rotary_dim in (6, 2, 4):
        rotary = Rotary.make(rotary_dim, 50, torch.device("cpu"))
        case, alone = (replace(next_step(LENS), rotary=rotary) for _ in range(2))
        x = input_of(case)
        out = block(x, rotary, case.cache, case.plan)
        assert torch.equal(out, PanelBlock(own)(x, rotary, alone.cache, alone.plan))
    assert pool.num_hits == 0


def test_a_result_survives_the_next_step() -> None:
    case = make_case([(1, 7)], torch.bfloat16)
    chain = chain_of([PanelBlock(weights(AttentionShape(), torch.bfloat16)) for _ in range(2)])
    layers = (case.cache, make_case([(1, 7)], torch.bfloat16).cache)
    x = input_of(case)
    first = chain(x, case.rotary, layers, case.plan)
    kept = first.clone()
    assert not torch.equal(chain(x + 1, case.rotary, layers, case.plan), kept)
    assert torch.equal(first, kept)


def test_a_cache_that_does_not_fit_is_refused() -> None:
    case = make_case([(1, 7)], torch.bfloat16)
    block = PanelBlock(weights(AttentionShape(), torch.bfloat16))
    x = input_of(case)
    block(x, case.rotary, case.cache, case.plan)
    k_cache, v_cache = case.cache
    both = torch.stack(case.cache, dim=-1)
    spread = (both[..., 0], both[..., 1])  # not contiguous
    for cache in ((k_cache.float(), v_cache.float()), (k_cache[:, 1:], v_cache[:, 1:]), spread):
        with pytest.raises(ValueError, match="cache"):
            block(x, case.rotary, cache, case.plan)
    with pytest.raises(ValueError, match="cache"):
        block(x, case.rotary, case.cache, replace(case.plan, block_size=2))


def test_two_engines_in_one_process() -> None:
    """Blocks that run at the same time, on different threads, do not interfere."""
    shape = AttentionShape()
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
