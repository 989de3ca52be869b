"""Every attention kernel against attention written out on each sequence's own dense K and V.

Tolerances: in fp32 only the order of sums differs, 1e-5 for values of size 1. In bf16 and fp16
inputs are rounded to 8 bits and K once more after it is turned: 2e-2. A cache in int8 is compared
with its own values; a last bit of a turned K may round another way: 2e-2.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.errors import ConfigError
from moss_tp.kernels import choose_kernels, reference
from moss_tp.kernels.base import Attend
from moss_tp.kernels.cpu import attention as numba_attention
from moss_tp.kernels.cpu.attention import add_attention
from moss_tp.kernels.cpu.team import Program
from moss_tp.kernels.plan import MAX_TILE_QUERIES, AttentionPlan
from tests.moss_tp.kernels.paged_case import Case, Shape, make_case

KERNELS = {"reference": reference.attend, "numba": numba_attention.attend}
HALF_DTYPES = {"reference": (torch.bfloat16, torch.float16), "numba": (torch.bfloat16,)}

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
    "odd block": Shape(heads=2, head_dim=24, rotary_dim=24, block_size=5),
    "MOSS": Shape(heads=2, head_dim=256, rotary_dim=64, block_size=16),
    "tiny": Shape(heads=5, head_dim=6, rotary_dim=4, block_size=1),
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
    for dtype in HALF_DTYPES[kernel]:
        case = make_case(BATCHES[name], dtype)
        assert_equal(result(KERNELS[kernel], case), case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(attend: Attend, shape: str, dtype: torch.dtype) -> None:
    case = make_case(BATCHES["mixed"], dtype, SHAPES[shape])
    assert_equal(result(attend, case), case)


def test_an_odd_head_in_fp32(attend: Attend) -> None:
    shape = Shape(heads=2, head_dim=13, rotary_dim=4, block_size=8)
    case = make_case(BATCHES["mixed"], torch.float32, shape)
    assert_equal(result(attend, case), case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_cache_in_int8(attend: Attend, shape: str, dtype: torch.dtype) -> None:
    case = make_case(BATCHES["mixed"], dtype, SHAPES[shape], in_int8=True)
    out = result(attend, case)
    torch.testing.assert_close(out.float(), case.expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cache_in_int8_of_a_model_in_bf16(shape: str) -> None:
    """What a block of such a model computes: its attention goes out in bf16."""
    case = make_case(BATCHES["mixed"], torch.bfloat16, SHAPES[shape], in_int8=True)
    out = torch.empty(case.expected.shape, dtype=torch.bfloat16)
    program, qkv = Program(), case.qkv.float()
    add_attention(program, qkv, out, case.rotary, case.cache, case.plan, case.scale)
    program.run()
    torch.testing.assert_close(out.float(), case.expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_int8_rows_are_what_quantize_makes(kernel: str) -> None:
    """Values are not turned: to the bit."""
    case = make_case(BATCHES["mixed"], torch.float32, in_int8=True)
    result(KERNELS[kernel], case)
    blocks, offsets = case.plan.slot_mapping // 4, case.plan.slot_mapping % 4
    values = case.cache[1][blocks, :, offsets]
    assert torch.equal(values, reference.quantize(case.qkv[:, 2]))


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40))
def test_int8_is_within_half_a_step(row: list[float]) -> None:
    wide = torch.tensor([row])
    back = reference.dequantize(reference.quantize(wide))
    step = wide.abs().max() / 127
    # Below the smallest normal number a scale may be flushed to zero.
    assert (back - wide).abs().max() <= step * 0.501 + 127 * torch.finfo().tiny


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("context", [256, 511, 700, 1025])
def test_a_long_context_is_split(context: int, dtype: torch.dtype) -> None:
    """One head for four threads: pieces of the context, then merged."""
    shape = Shape(heads=1, head_dim=16, block_size=16)
    case = make_case([(1, context), (1, 3)], dtype, shape)
    assert_equal(result(numba_attention.attend, case), case)


def test_pieces_of_a_context_do_not_depend_on_company() -> None:
    """A row is split at fixed places and merged the same way, whatever the rows beside it."""
    shape = Shape(heads=4, head_dim=32, block_size=16)
    case = make_case([(1, 30), (1, 700), (1, 1100)], torch.bfloat16, shape)
    together = result(numba_attention.attend, case)
    for row, context in enumerate((30, 700, 1100)):
        plan = AttentionPlan.make(
            case.plan.positions[row : row + 1],
            case.plan.slot_mapping[row : row + 1],
            [1],
            [context],
            case.plan.row_tables[row : row + 1],
            shape.block_size,
        )
        alone = replace(case, qkv=case.qkv[row : row + 1], plan=plan)
        assert torch.equal(result(numba_attention.attend, alone)[0], together[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cuts", [(0, 60, 76, 205), (0, 16, 64, 205), (0, 9, 100, 117, 205)])
def test_queries_do_not_depend_on_how_a_prompt_is_cut(
    dtype: torch.dtype, cuts: tuple[int, ...]
) -> None:
    """To the bit, whichever step each is in and wherever in it."""
    case = make_case([(205, 281)], dtype, SHAPES["MOSS"])
    whole = result(numba_attention.attend, case)
    for start, stop in pairwise(cuts):
        plan = AttentionPlan.make(
            case.plan.positions[start:stop],
            case.plan.slot_mapping[start:stop],
            [stop - start],
            [76 + stop],
            case.plan.chunk_tables,
            case.plan.block_size,
        )
        part = replace(case, qkv=case.qkv[start:stop], plan=plan)
        assert torch.equal(result(numba_attention.attend, part), whole[start:stop])


def test_rows_do_not_depend_on_their_company() -> None:
    """Speculated tokens are verified to the bit as they would have been decoded."""
    together = make_case([(4, 44), (1, 7)], torch.bfloat16)
    out = result(numba_attention.attend, together)
    for row in range(4):
        context = 41 + row
        alone = make_case([(1, context)], torch.bfloat16)
        for part, whole in zip(alone.cache, together.cache, strict=True):
            dense = reference._gather(whole, together.plan.row_tables[3:4])[0]
            own = reference._gather(part, alone.plan.row_tables)[0]
            own[:, :context] = dense[:, :context]
            table = alone.plan.row_tables[0]
            part[table] = own.view(len(own), len(table), -1, own.shape[-1]).transpose(0, 1)
        single = Case(
            together.qkv[row : row + 1], together.rotary, alone.cache, alone.plan,
            together.scale, alone.expected, alone.keys,
        )  # fmt: skip
        assert torch.equal(result(numba_attention.attend, single)[0], out[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_holds_the_steps_rows(attend: Attend, dtype: torch.dtype) -> None:
    case = make_case(BATCHES["mixed"], dtype)
    result(attend, case)
    blocks, offsets = case.plan.slot_mapping // 4, case.plan.slot_mapping % 4
    keys, values = (part[blocks, :, offsets] for part in case.cache)
    torch.testing.assert_close(keys, case.keys.to(dtype))
    assert torch.equal(values, case.qkv[:, 2])
    written = sum(context for _, context in BATCHES["mixed"])
    for part in case.cache:
        assert int((part != 1e3).any(-1).any(1).sum()) == written


def test_what_does_not_fit_together(attend: Attend) -> None:
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
        choose_kernels(torch.device("meta"), torch.float32, 64)
