"""A row of attention has the same bits, whichever steps its sequence is computed in."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.kernels.cpu.attention.attend import attend
from moss_tp.kernels.cpu.attention.operands import DOT, FMA, Operands
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.reference import attention as reference
from moss_tp.kernels.rotary import Rotary
from moss_tp.native.vectors import has_cpu_feature
from tests.moss_tp.kernels.cells import to_rows
from tests.moss_tp.kernels.paged_case import AttentionShape
from tests.moss_tp.kernels.paged_run import AttendStep, PagedRun

OPERANDS = {"fma": FMA} | ({"dot": DOT} if has_cpu_feature("avx512bf16") else {})
# Of a model and of its cache.
DTYPES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.float32, torch.int8),
    (torch.bfloat16, torch.int8),
]
HEAD_DIMS = (6, 10, 13, 16, 24, 48, 64, 80, 96, 112, 128, 256)
BLOCK_SIZES = (1, 2, 3, 4, 5, 8, 16, 24, 32)


@st.composite
def shapes(draw: st.DrawFn) -> AttentionShape:
    head_dim = draw(st.sampled_from(HEAD_DIMS))
    rotary_dim = 2 * draw(st.integers(1, head_dim // 2))
    heads, block_size = draw(st.integers(1, 3)), draw(st.sampled_from(BLOCK_SIZES))
    return AttentionShape(heads, head_dim, rotary_dim, block_size)


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[int]:
    """How many rows each step takes: chunks of a few sizes, and single ones at the end."""
    singles = draw(st.integers(0, min(length - 1, 20)))
    steps, left = [], length - singles
    while left:
        few, many = st.integers(1, 9), st.integers(1, 700)
        steps.append(min(left, draw(st.one_of(few, many))))
        left -= steps[-1]
    return steps + [1] * singles


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Splits of a context are tasks of their own where there are few rows, even then."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bits(out: Tensor) -> Tensor:
    return out.view(torch.uint8)


def fits(shape: AttentionShape, operands: Operands) -> bool:
    return shape.head_dim % operands.per_step == 0


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_however_a_sequence_is_cut(
    name: str, dtypes: tuple[torch.dtype, torch.dtype], data: st.DataObject
) -> None:
    """In any chunks and beside any other sequences, with the same bits in the cache."""
    shape = data.draw(shapes().filter(lambda shape: fits(shape, OPERANDS[name])))
    length = data.draw(st.one_of(st.integers(1, 200), st.integers(200, 1500)))
    kernel = partial(attend, operands=OPERANDS[name])
    whole = PagedRun(shape, *dtypes, [length], seed=1)
    expected = whole.step(kernel, {0: length})
    others = data.draw(st.lists(st.integers(1, 150), max_size=3))
    run = PagedRun(shape, *dtypes, [length, *others], seed=7)
    outs, left = [], dict(enumerate(others, start=1))
    for count in data.draw(cuts(length)):
        beside = {seq: data.draw(st.integers(1, n)) for seq, n in left.items()}
        left = {seq: n - beside[seq] for seq, n in left.items() if n > beside[seq]}
        outs.append(run.step(kernel, {**beside, 0: count} if count % 2 else {0: count, **beside}))
    assert torch.equal(bits(torch.cat(outs)), bits(expected))
    assert torch.equal(run.stored(), whole.stored())


@settings(max_examples=15, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_drafted_rows_equal_decoded_rows(
    name: str, dtypes: tuple[torch.dtype, torch.dtype], data: st.DataObject
) -> None:
    """Right drafts and wrong ones, which are computed again."""
    shape = data.draw(shapes().filter(lambda shape: fits(shape, OPERANDS[name])))
    prompt, reply = data.draw(st.integers(1, 600)), 24
    kernel = partial(attend, operands=OPERANDS[name])
    whole = PagedRun(shape, *dtypes, [prompt + reply], seed=1)
    expected = whole.step(kernel, {0: prompt + reply})
    run = PagedRun(shape, *dtypes, [prompt + reply], seed=9)
    outs, left = [run.step(kernel, {0: prompt})], reply
    while left:
        rows = data.draw(st.integers(1, min(8, left)))
        num_wrong = data.draw(st.integers(0, rows - 1))
        outs.append(run.step(kernel, {0: rows}, num_wrong))
        left -= rows - num_wrong
    assert torch.equal(bits(torch.cat(outs)), bits(expected))
    assert torch.equal(run.stored(), whole.stored())


@pytest.mark.parametrize("dtypes", DTYPES[:2], ids=str)
@pytest.mark.parametrize("name", OPERANDS)
def test_another_order_is_noticed(name: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    """The comparison fails where single rows are summed in another order than chunks are."""
    shape, operands = AttentionShape(2, 64, 32, 16), OPERANDS[name]

    def kernel(
        qkv: Tensor,
        rotary: Rotary,
        cache: tuple[Tensor, Tensor],
        plan: AttentionPlan,
        scale: float,
    ) -> Tensor:
        if len(qkv) > 1:
            return attend(qkv, rotary, cache, plan, scale, operands)
        rows = to_rows((cache[0].nan_to_num(), cache[1].nan_to_num()), operands.per_step)
        return reference.attend(qkv, rotary, rows, plan, scale)

    def outputs(attend_step: AttendStep, steps: list[int]) -> Tensor:
        run = PagedRun(shape, *dtypes, [sum(steps)], seed=1)
        return torch.cat([run.step(attend_step, {0: count}) for count in steps])

    whole, other = outputs(kernel, [90]), outputs(kernel, [89, 1])
    assert torch.equal(bits(whole[:89]), bits(other[:89]))
    assert not torch.equal(bits(whole[89:]), bits(other[89:]))
    torch.testing.assert_close(whole[89:], other[89:], atol=5e-2, rtol=5e-2)
