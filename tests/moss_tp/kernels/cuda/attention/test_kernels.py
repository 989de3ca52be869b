"""The Triton kernels in the interpreter against the torch reference."""

import pytest
import torch
from torch import Tensor

from moss_tp.kernels.cuda.attention import attend as attending
from moss_tp.kernels.cuda.attention import partials
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted
from tests.moss_tp.kernels.cuda.attention.paged import SHAPE, Step, make_step, step_of
from tests.moss_tp.kernels.paged_case import AttentionShape

# One row, several pieces, drafts, prompts that begin and end at odd positions.
MIXED = [(1, 7), (35, 150), (1, 261), (8, 132), (17, 17), (1, 1)]
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = {
    "a head of 64": AttentionShape(heads=1, head_dim=64, rotary_dim=64, block_size=16),
    "a head of 80": AttentionShape(heads=2, head_dim=80, rotary_dim=32, block_size=32),
    "MOSS": AttentionShape(heads=1, head_dim=256, rotary_dim=64, block_size=16),
    "five heads": AttentionShape(heads=5, head_dim=16, rotary_dim=2, block_size=8),
}


def both(step: Step, again: Step) -> tuple[Tensor, Tensor]:
    """The kernels' output, and that of the reference on an equal step."""
    with interpreted():
        out = step.run()
    return out, again.run()


def tolerance(dtype: torch.dtype) -> float:
    return {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}[dtype]


def assert_near(out: Tensor, expected: Tensor) -> None:
    bound = tolerance(out.dtype)
    torch.testing.assert_close(out, expected, atol=bound, rtol=bound, equal_nan=True)


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_mixed_step(dtype: torch.dtype, is_int8: bool) -> None:
    """With idle rows and tiles, whose outputs stay as they are."""
    _, case = make_step(MIXED, dtype, is_int8=is_int8)
    out, expected = both(*(step_of(case, idle=2, spare_rows=2) for _ in range(2)))
    rows = case.plan.num_rows
    assert out[rows:].isnan().all()
    assert out[:rows].isfinite().all()
    assert_near(out, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str) -> None:
    lens = [(3, 70), (20, 133)]
    steps = [make_step(lens, torch.float16, SHAPES[shape])[0] for _ in range(2)]
    assert_near(*both(*steps))


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", ["MOSS", "five heads", "a head of 80"])
def test_rotary_and_cache_to_the_bit(shape: str, dtype: torch.dtype, is_int8: bool) -> None:
    step, again = (make_step([(5, 40), (1, 3)], dtype, SHAPES[shape], is_int8)[0] for _ in range(2))
    both(step, again)
    assert torch.equal(step.qkv, again.qkv)
    for part, other in zip(step.cache, again.cache, strict=True):
        if part is not None and other is not None:
            torch.testing.assert_close(part, other, atol=0, rtol=0, equal_nan=True)


def test_rows_of_zeros_in_int8() -> None:
    step, again = (make_step([(2, 2)], is_int8=True)[0] for _ in range(2))
    for each in (step, again):
        each.qkv.zero_()
    out, expected = both(step, again)
    assert torch.equal(out, torch.zeros_like(out)) and torch.equal(out, expected)


def test_many_rows_need_no_partials(monkeypatch: pytest.MonkeyPatch) -> None:
    step, _ = make_step(MIXED, torch.float16)
    with counted_launches() as split:
        step.run()
    monkeypatch.setattr(partials, "MAX_BYTES", 0)
    with counted_launches() as loop:
        step.attend()
    assert split == {"store_kv": 1, "attend": 2, "merge_pieces": 1}
    assert loop == {"attend": 2}


def test_idle_steps_launch_nothing_that_reads() -> None:
    """All tiles idle: no output, no NaN from an unwritten cache, no error."""
    _, case = make_step([(1, 1)])
    step = step_of(case, idle=1)
    step.plan.short_tiles.zero_()
    with interpreted():
        assert step.run().isnan().all()


@pytest.mark.parametrize("broken", ["mask", "piece"])
def test_a_broken_kernel_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, again = (make_step([(4, 300)], torch.float32)[0] for _ in range(2))
    if broken == "mask":
        # Every row sees what the last one does.
        step.plan.positions.fill_(299)
        step.run()
        expected = make_step([(4, 300)], torch.float32)[0].run()
        with interpreted(), pytest.raises(AssertionError):
            assert_near(step.attend(), expected)
        return
    monkeypatch.setattr(attending, "num_pieces", lambda tokens: partials.num_pieces(tokens) - 1)
    with pytest.raises(AssertionError):
        assert_near(*both(step, again))


def test_what_a_case_is_made_of() -> None:
    """Blocks are in no order, slots that nobody has written hold NaN, rows are apart."""
    step, case = make_step(MIXED)
    tables = step.plan.block_tables
    assert (tables[1, 1:5] != tables[1, :4] + 1).any()
    assert step.cache.k[:-1].isnan().any() and step.cache.v[:-1].isnan().any()
    assert step.qkv.stride(0) > case.qkv.stride(0)
    assert SHAPE.head_dim * SHAPE.heads < step.attend().stride(0)
