"""A row's output is the same to the bit as a decode, a drafted row and a row of a prompt, over
pieces in programs of their own or in one. In the interpreter, with products in one order."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from moss_tp.kernels.cuda.attention import attend as attending
from moss_tp.kernels.cuda.attention import partials
from moss_tp.kernels.cuda.runtime.launches import counted_launches
from moss_tp.kernels.cuda.runtime.switch import interpreted
from moss_tp.kernels.device_plan import SHORT_ROWS
from moss_tp.kernels.plan import AttentionPlan
from tests.moss_tp.kernels.cuda.attention.paged import make_step, step_of
from tests.moss_tp.kernels.cuda.ordered_dot import ordered_dot
from tests.moss_tp.kernels.paged_case import AttentionShape, Case, make_case

SHAPE = AttentionShape(heads=1, head_dim=32, rotary_dim=8, block_size=8)
__all__ = ["ordered_dot"]
ROWS, CONTEXT = 64, 300  # a chunk from position 236 to 300, over the end of a piece


def part(case: Case, rows: slice) -> Case:
    """A step of only these rows of a case with one sequence; its cache has those before."""
    plan = case.plan
    alone = AttentionPlan(
        plan.positions[rows],
        plan.slot_mapping[rows],
        np.array([rows.stop - rows.start]),
        plan.positions[rows][-1:] + 1,
        plan.block_tables,
        plan.block_size,
    )
    return replace(case, qkv=case.qkv[rows], plan=alone)


def chunk(dtype: torch.dtype, is_int8: bool) -> tuple[Callable[[int, int], Tensor], Tensor]:
    """`rows(start, stop)` of a chunk, as a step of their own; and all of them as one."""
    case = make_case([(ROWS, CONTEXT)], dtype, SHAPE, is_int8)
    step = step_of(case)
    whole = step.run()

    def rows(start: int, stop: int) -> Tensor:
        alone = step_of(part(case, slice(start, stop)))
        alone.qkv.copy_(step.qkv[start:stop])  # rotated
        return replace(alone, cache=step.cache).attend()

    return rows, whole


@pytest.fixture(params=["split", "loop"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "loop":
        monkeypatch.setattr(partials, "MAX_BYTES", 0)


@pytest.mark.usefixtures("route", "ordered_dot")
@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_row_of_a_chunk_is_a_decode_and_a_draft(dtype: torch.dtype, is_int8: bool) -> None:
    with interpreted():
        rows, whole = chunk(dtype, is_int8)
        for start, count in ((0, 1), (19, 1), (20, 2), (63, 1), (17, 8), (40, 5), (48, 16)):
            assert torch.equal(rows(start, start + count), whole[start : start + count])
        # A prompt cut elsewhere.
        assert torch.equal(rows(7, 50), whole[7:50])


@pytest.mark.usefixtures("ordered_dot")
@pytest.mark.parametrize("is_int8", [False, True])
def test_both_routes(is_int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lens = [(1, 300), (8, 257), (1, 128), (3, 129), (1, 5)]
    with interpreted():
        split, _ = make_step(lens, torch.float16, SHAPE, is_int8)
        out = split.run()
        monkeypatch.setattr(partials, "MAX_BYTES", 0)
        loop, _ = make_step(lens, torch.float16, SHAPE, is_int8)
        assert torch.equal(loop.run(), out)


@pytest.mark.usefixtures("ordered_dot")
def test_a_small_gpu_has_programs_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each has all pieces of a tile; else each piece has a program of its own."""
    steps = [make_step([(1, 500), (2, 130), (1, 5)], torch.float16, SHAPE)[0] for _ in range(2)]
    with interpreted(), counted_launches() as launches:
        alone = steps[0].run()
        assert launches["merge_pieces"] == 1
        monkeypatch.setattr(partials, "ENOUGH_PROGRAMS", 1)
        monkeypatch.setattr(attending, "multiprocessors", lambda _: 3)
        assert torch.equal(steps[1].run(), alone)
        assert launches["merge_pieces"] == 1


@pytest.mark.usefixtures("ordered_dot")
def test_short_tiles_are_split_beside_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """In partials that only they have places in, whatever the prompt's rows."""
    lens = [(3, 260), (60, 70), (2, 300)]
    step = make_step(lens, torch.float16, SHAPE)[0]
    needed = 2 * SHORT_ROWS * partials.row_bytes(partials.num_pieces(step.plan.max_context), 1, 32)
    assert partials.partials_bytes(step.limits(), 1, 32) == needed
    monkeypatch.setattr(partials, "MAX_BYTES", needed)
    with interpreted():
        with counted_launches() as launches:
            split = step.run()
        assert launches["merge_pieces"] == 1
        monkeypatch.setattr(partials, "MAX_BYTES", 0)
        assert torch.equal(make_step(lens, torch.float16, SHAPE)[0].run(), split)


def test_pieces_elsewhere_give_other_bits() -> None:
    """The reference takes a whole context at once: this test can fail."""
    rows, whole = chunk(torch.float32, False)
    with interpreted():
        by_pieces = rows(40, 45)
    assert not torch.equal(by_pieces, whole[40:45])
    torch.testing.assert_close(by_pieces, whole[40:45], atol=1e-5, rtol=1e-5)
