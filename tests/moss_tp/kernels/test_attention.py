"""Every attention kernel against attention computed from each sequence's dense K and V.

Tolerances: in fp32 only the order of sums differs, 1e-5 for values of size 1. In bf16 and fp16
inputs are rounded to 8 bits, and K once more after it is rotated: 2e-2. An int8 cache is compared
with its own values; the last bit of a rotated K may round differently: 2e-2.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.errors import ConfigError
from moss_tp.kernels import choose_kernels
from moss_tp.kernels.base import Attend
from moss_tp.kernels.cpu.attention.attend import add_attention
from moss_tp.kernels.cpu.attention.operands import best_operands
from moss_tp.kernels.cpu.attention.plan import MAX_TILE_QUERIES, cpu_plan
from moss_tp.kernels.cpu.runtime.program import Program
from moss_tp.kernels.kv_cache import dequantize, quantize
from moss_tp.kernels.plan import AttentionPlan
from moss_tp.kernels.reference import attention as reference
from tests.moss_tp.kernels.cells import attend_rows, to_cells
from tests.moss_tp.kernels.paged_case import AttentionShape, Case, make_case

KERNELS: dict[str, Attend] = {"reference": reference.attend, "cpu": attend_rows}
HALF_DTYPES = (torch.bfloat16, torch.float16)

# (query_len, context_len) a sequence: decodes alone, prefills alone, and mixed.
BATCHES = {
    "decodes": [(1, 1), (1, 4), (1, 5), (1, 23)],
    "one decode": [(1, 9)],
    "speculated": [(3, 40), (8, 8), (1, 2)],
    "prefill": [(16, 16), (9, 9)],
    "chunk": [(15, 90)],
    "tiles": [(2 * MAX_TILE_QUERIES + 5, 2 * MAX_TILE_QUERIES + 75)],
    "mixed": [(1, 7), (26, 26), (1, 16), (13, 82), (1, 1)],
}
SHAPES = {
    "odd block": AttentionShape(heads=2, head_dim=24, rotary_dim=24, block_size=5),
    "MOSS": AttentionShape(heads=2, head_dim=256, rotary_dim=64, block_size=16),
    "tiny": AttentionShape(heads=5, head_dim=6, rotary_dim=4, block_size=1),
}


@pytest.fixture(params=KERNELS)
def attend(request: pytest.FixtureRequest) -> Attend:
    return KERNELS[request.param]


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def result(attend: Attend, case: Case) -> Tensor:
    return attend(case.qkv.clone(), case.rotary, case.cache, case.plan, case.scale)


def written_rows(case: Case) -> tuple[Tensor, Tensor]:
    """The step's K and V as the cache holds them."""
    slots = torch.from_numpy(case.plan.slot_mapping)
    blocks, offsets = slots // case.plan.block_size, slots % case.plan.block_size
    k_cache, v_cache = case.cache
    return k_cache[blocks, :, offsets], v_cache[blocks, :, offsets]


def in_cells(case: Case) -> tuple[Tensor, Tensor]:
    """The cache of a bf16 model."""
    return to_cells(case.cache, best_operands(True, case.qkv.shape[-1]).per_step)


def rows_alone(case: Case, rows: slice, context: int, seq: int) -> Case:
    """A step that has only these rows, of one sequence with `context` tokens up to the last."""
    plan = case.plan
    alone = AttentionPlan(
        plan.positions[rows],
        plan.slot_mapping[rows],
        np.array([rows.stop - rows.start]),
        np.array([context]),
        plan.block_tables[seq : seq + 1],
        plan.block_size,
    )
    return replace(case, qkv=case.qkv[rows], plan=alone)


def assert_equal(out: Tensor, case: Case) -> None:
    assert out.dtype == case.qkv.dtype
    tolerance = 1e-5 if out.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out.float(), case.expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", BATCHES)
def test_equals_dense_attention(attend: Attend, name: str) -> None:
    case = make_case(BATCHES[name], torch.float32)
    assert_equal(result(attend, case), case)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", BATCHES)
def test_half_precision(kernel: str, name: str) -> None:
    """Scores are kept in fp32, so only inputs and output are rounded."""
    for dtype in HALF_DTYPES:
        case = make_case(BATCHES[name], dtype)
        assert_equal(result(KERNELS[kernel], case), case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(attend: Attend, shape: str, dtype: torch.dtype) -> None:
    case = make_case(BATCHES["mixed"], dtype, SHAPES[shape])
    assert_equal(result(attend, case), case)


def test_an_odd_head_in_fp32(attend: Attend) -> None:
    shape = AttentionShape(heads=2, head_dim=13, rotary_dim=4, block_size=8)
    case = make_case(BATCHES["mixed"], torch.float32, shape)
    assert_equal(result(attend, case), case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_int8_cache(attend: Attend, shape: str, dtype: torch.dtype) -> None:
    case = make_case(BATCHES["mixed"], dtype, SHAPES[shape], is_int8=True)
    out = result(attend, case)
    torch.testing.assert_close(out.float(), case.expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_int8_cache_of_a_bf16_model(shape: str) -> None:
    """As in a block of such a model, whose attention output is bf16."""
    case = make_case(BATCHES["mixed"], torch.bfloat16, SHAPES[shape], is_int8=True)
    out = torch.empty(case.expected.shape, dtype=torch.bfloat16)
    program, qkv = Program(), case.qkv.float()
    cache = in_cells(case)
    add_attention(program, qkv, out, case.rotary, cache, cpu_plan(case.plan), case.scale)
    program.run()
    torch.testing.assert_close(out.float(), case.expected, atol=2e-2, rtol=2e-2)


def test_an_unknown_dtype_is_refused_on_cpu() -> None:
    """Its kernels would read its rows as others."""
    case = make_case(BATCHES["mixed"], torch.float64)
    with pytest.raises(ValueError, match="float64"):
        result(attend_rows, case)


def test_bf16_rows_are_attended_by_the_kernel_that_was_compiled_for_them() -> None:
    """`cpu_kernels` compiles only the kernel of bf16 outputs; another one would be compiled in
    the first request."""
    for is_int8 in (False, True):
        case, again = (
            make_case(BATCHES["mixed"], torch.bfloat16, SHAPES["MOSS"], is_int8) for _ in range(2)
        )
        out = torch.empty(case.expected.shape, dtype=torch.bfloat16)
        program, qkv, cache = Program(), case.qkv.float(), in_cells(case)
        add_attention(program, qkv, out, case.rotary, cache, cpu_plan(case.plan), case.scale)
        program.run()
        assert torch.equal(result(attend_rows, again), out)


@pytest.mark.parametrize("kernel", KERNELS)
def test_int8_rows_equal_quantize(kernel: str) -> None:
    """To the bit for values, which are not rotated."""
    case = make_case(BATCHES["mixed"], torch.float32, is_int8=True)
    result(KERNELS[kernel], case)
    values = written_rows(case)[1]
    assert torch.equal(values, quantize(case.qkv[:, 2]))


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40))
def test_int8_is_within_half_a_step(row: list[float]) -> None:
    wide = torch.tensor([row])
    back = dequantize(quantize(wide))
    step = wide.abs().max() / 127
    # Below the smallest normal number a scale may be flushed to zero.
    assert (back - wide).abs().max() <= step * 0.501 + 127 * torch.finfo().tiny


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("context", [256, 511, 700, 1025])
def test_a_long_context_is_split(context: int, dtype: torch.dtype) -> None:
    """One head for four threads: splits of the context, then merged."""
    shape = AttentionShape(heads=1, head_dim=16, block_size=16)
    case = make_case([(1, context), (1, 3)], dtype, shape)
    assert_equal(result(attend_rows, case), case)


def test_splits_do_not_depend_on_the_rows_beside() -> None:
    """A row is split at fixed places and merged the same way, whatever the rows beside it."""
    shape = AttentionShape(heads=4, head_dim=32, block_size=16)
    case = make_case([(1, 30), (1, 700), (1, 1100)], torch.bfloat16, shape)
    together = result(attend_rows, case)
    for row, context in enumerate((30, 700, 1100)):
        alone = rows_alone(case, slice(row, row + 1), context, seq=row)
        assert torch.equal(result(attend_rows, alone)[0], together[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cuts", [(0, 60, 76, 205), (0, 16, 64, 205), (0, 9, 100, 117, 205)])
def test_queries_do_not_depend_on_how_a_prompt_is_cut(
    dtype: torch.dtype, cuts: tuple[int, ...]
) -> None:
    """To the bit, whichever step each is in, and wherever in it."""
    case = make_case([(205, 281)], dtype, SHAPES["MOSS"])
    whole = result(attend_rows, case)
    for start, stop in pairwise(cuts):
        part = rows_alone(case, slice(start, stop), 76 + stop, seq=0)
        assert torch.equal(result(attend_rows, part), whole[start:stop])


def test_drafted_rows_equal_decoded_rows() -> None:
    """Drafted tokens are verified to the bit as they would have been decoded."""
    case = make_case([(4, 44), (1, 7)], torch.bfloat16)
    out = result(attend_rows, case)
    for row in range(4):
        alone = rows_alone(case, slice(row, row + 1), 41 + row, seq=0)
        assert torch.equal(result(attend_rows, alone)[0], out[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_holds_the_steps_rows(attend: Attend, dtype: torch.dtype) -> None:
    case = make_case(BATCHES["mixed"], dtype)
    result(attend, case)
    keys, values = written_rows(case)
    torch.testing.assert_close(keys, case.keys.to(dtype))
    assert torch.equal(values, case.qkv[:, 2])
    written = sum(context for _, context in BATCHES["mixed"])
    for part in case.cache:
        # The CPU zeroes the value beside a sequence's last one, see `cpu.attention.store`.
        is_written = (part != 1e3) & (part != 0)
        assert int(is_written.any(-1).any(1).sum()) == written


def test_mismatches_are_refused(attend: Attend) -> None:
    case = make_case(BATCHES["mixed"], torch.float32)
    half = (case.cache[0].half(), case.cache[1].half())
    arguments = (case.plan, case.scale)
    with pytest.raises(ValueError, match="float16"):
        attend(case.qkv, case.rotary, half, *arguments)
    with pytest.raises(ValueError, match="slots"):
        attend(case.qkv[1:], case.rotary, case.cache, *arguments)
    with pytest.raises(ValueError, match="a cache"):
        attend(case.qkv[:, :, 1:], case.rotary, case.cache, *arguments)


def test_a_device_without_kernels() -> None:
    with pytest.raises(ConfigError, match="no kernels for meta"):
        choose_kernels("meta", torch.float32, 64)
