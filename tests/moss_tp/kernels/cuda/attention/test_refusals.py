"""What the wrappers refuse, what partials and caches need."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.kernels.cuda.attention import partials
from moss_tp.kernels.cuda.attention.attend import attend
from moss_tp.kernels.cuda.attention.cache import PagedFormat
from moss_tp.kernels.cuda.attention.store import store_kv
from moss_tp.kernels.device_plan import StepLimits
from moss_tp.kernels.kv_cache import BlockShape, RowFormat
from moss_tp.kernels.rotary import Rotary
from tests.moss_tp.kernels.cuda.attention.paged import Step, make_step, poisoned_partials

CPU = torch.device("cpu")


def attended(step: Step, **changes: Any) -> None:
    rows, _, heads, dim = step.qkv.shape
    arguments: dict[str, Any] = {
        "qkv": step.qkv,
        "cache": step.cache,
        "plan": step.plan,
        "scale": step.scale,
        "out": torch.empty(rows, heads * dim),
        "partials": poisoned_partials(1 << 20),
    }
    attend(**arguments | changes)


@pytest.fixture
def step() -> Step:
    return make_step([(2, 150), (40, 40)])[0]


def test_steps_that_fit(step: Step) -> None:
    attended(step)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda qkv: qkv[1:], "for 42 rows"),
        (lambda qkv: qkv[:, :2], "for 42 rows"),
        (lambda qkv: qkv[..., :8], "head size 8"),
        (lambda qkv: qkv.double(), "float64"),
        (lambda qkv: qkv.transpose(2, 3).contiguous().transpose(2, 3), "strides"),
        (lambda qkv: qkv.half(), "the cache is torch.float32"),
    ],
)
def test_wrong_rows(step: Step, change: Any, reason: str) -> None:
    qkv = change(step.qkv)
    with pytest.raises(ValueError, match=reason):
        attended(step, qkv=qkv)
    with pytest.raises(ValueError, match=reason):
        store_kv(qkv, step.rotary, step.cache, step.plan)


def test_wrong_caches(step: Step) -> None:
    cache = step.cache
    for k in (cache.k[:-1], cache.k[..., :8], cache.k.half(), cache.k[:, :1]):
        with pytest.raises(ValueError, match="cache"):
            attended(step, cache=cache._replace(k=k))
    with pytest.raises(ValueError, match="cache"):
        attended(step, cache=cache._replace(k_scales=cache.k[..., 0].contiguous()))
    int8 = PagedFormat().allocate(len(cache.k) - 1, BlockShape(2, 8, 16), torch.int8, CPU)
    assert int8.v_scales is not None
    with pytest.raises(ValueError, match="scales"):
        attended(step, cache=int8._replace(v_scales=int8.v_scales[1:]))
    attended(step, cache=int8)


def test_wrong_plans(step: Step) -> None:
    plan = step.plan
    for name in ("slots", "positions", "block_tables", "short_tiles"):
        with pytest.raises(ValueError, match=name):
            attended(step, plan=replace(plan, **{name: getattr(plan, name).long()}))
    with pytest.raises(ValueError, match="slots"):
        attended(step, plan=replace(plan, slots=plan.slots[1:]))
    with pytest.raises(ValueError, match="a cache"):
        attended(step, plan=replace(plan, block_size=16))


@pytest.mark.parametrize(
    "out", [torch.empty(42, 31), torch.empty(32, 42).T, torch.empty(42, 32).half()]
)
def test_wrong_outputs(step: Step, out: Tensor) -> None:
    with pytest.raises(ValueError, match="out"):
        attended(step, out=out)


def test_too_many_rotated_dimensions(step: Step) -> None:
    with pytest.raises(ValueError, match="18 rotated"):
        store_kv(step.qkv, Rotary.make(18, 200, CPU), step.cache, step.plan)


def test_partials_are_exact(step: Step) -> None:
    """One float less than `partials_bytes` is refused, where a step is the largest."""
    needed = partials.partials_bytes(step.limits(), 2, 16)
    attended(step, partials=poisoned_partials(needed))
    with pytest.raises(ValueError, match=f"{needed - 4} bytes of partials"):
        attended(step, partials=poisoned_partials(needed - 4))
    with pytest.raises(ValueError, match="fp32"):
        attended(step, partials=torch.empty(needed, dtype=torch.float16))


@given(
    st.integers(1, 4096),
    st.integers(1, 4096),
    st.integers(1, 8192),
    st.integers(1, 8192),
    st.sampled_from([(24, 256), (6, 256), (2, 16)]),
    st.integers(0, 512),
)
def test_no_smaller_step_needs_more(
    max_rows: int, rows: int, max_context: int, context: int, heads: tuple[int, int], tiles: int
) -> None:
    limits = StepLimits(max_rows, max_rows, max_rows, tiles, max_context)
    rows, context = min(rows, max_rows), min(context, max_context)
    rows, max_rows = partials.num_places(rows, tiles), partials.num_places(max_rows, tiles)
    most = partials.partials_bytes(limits, *heads)
    assert most <= partials.MAX_BYTES
    if partials.has_partials(rows, context, *heads):
        assert rows * partials.row_bytes(partials.num_pieces(context), *heads) <= most
    if partials.has_partials(max_rows, max_context, *heads):
        assert most >= max_rows * partials.row_bytes(partials.num_pieces(max_context), *heads)


def test_programs_that_are_few_for_a_gpu() -> None:
    assert partials.are_few(1, num_heads=24, multiprocessors=132)
    assert partials.are_few(27, num_heads=24, multiprocessors=132)
    assert not partials.are_few(28, num_heads=24, multiprocessors=132)
    assert partials.are_few(28, num_heads=6, multiprocessors=132)  # a rank's of four


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_bytes_of_a_block(dtype: torch.dtype) -> None:
    """All that is allocated for a block, as many as the CPU needs for it."""
    shape = BlockShape(num_heads=3, block_size=8, head_dim=32)
    paged, rows = PagedFormat(), RowFormat()
    cache = paged.allocate(5, shape, dtype, CPU)
    assert cache.spare_block == 5
    allocated = sum(part.nbytes for part in cache if part is not None)
    assert allocated == (5 + paged.spare_blocks) * paged.bytes_per_block(shape, dtype)
    plain = rows.allocate(5, shape, dtype, CPU)
    assert sum(part.nbytes for part in plain) == 5 * rows.bytes_per_block(shape, dtype)
    assert rows.bytes_per_block(shape, dtype) == paged.bytes_per_block(shape, dtype)


@pytest.mark.parametrize("block_size", [1, 4, 12, 24])
def test_blocks_that_kernels_cannot_read(block_size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        PagedFormat().allocate(1, BlockShape(1, block_size, 16), torch.float16, CPU)
    with pytest.raises(ValueError, match="float64"):
        PagedFormat().allocate(1, BlockShape(1, 8, 16), torch.float64, CPU)
