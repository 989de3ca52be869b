"""The torch reference on a DevicePlan against dense attention and `kernels.reference`."""

import pytest
import torch

from moss_tp.kernels.kv_cache import SCALE_BYTES, quantize
from moss_tp.kernels.reference import attention as reference
from moss_tp.kernels.rotary import rotate
from tests.moss_tp.kernels.cuda.attention.paged import make_step, step_of

MIXED = [(1, 7), (26, 26), (1, 140), (40, 170), (8, 30), (1, 1)]


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_dense_attention_and_the_other_reference(dtype: torch.dtype, is_int8: bool) -> None:
    step, case = make_step(MIXED, dtype, is_int8=is_int8)
    other = reference.attend(case.qkv.clone(), case.rotary, case.cache, case.plan, case.scale)
    out = step.run()
    tolerance = 1e-5 if dtype == torch.float32 and not is_int8 else 2e-2
    torch.testing.assert_close(out.float(), case.expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(out, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("is_int8", [False, True])
def test_the_cache_holds_the_steps_rows(is_int8: bool) -> None:
    step, case = make_step(MIXED, is_int8=is_int8)
    step.run()
    slots = step.plan.slots.long()
    blocks, offsets = slots // step.plan.block_size, slots % step.plan.block_size
    assert torch.equal(step.qkv[:, 1], case.qkv[:, 1]), "k is rotated on its way"
    q = rotate(case.qkv[:, 0], case.rotary, step.plan.positions.long())
    assert torch.equal(step.qkv[:, 0], q)
    k = rotate(case.qkv[:, 1], case.rotary, step.plan.positions.long())
    for rows, part, scales in (
        (k, step.cache.k, step.cache.k_scales),
        (case.qkv[:, 2], step.cache.v, step.cache.v_scales),
    ):
        stored = quantize(rows) if is_int8 else rows
        assert torch.equal(part[blocks, :, offsets], stored[..., : rows.shape[-1]])
        if scales is not None:
            scale = stored[..., -SCALE_BYTES:].contiguous().view(torch.float32)[..., 0]
            assert torch.equal(scales[blocks, :, offsets], scale)


def test_idle_rows_and_tiles_change_nothing() -> None:
    step, case = make_step(MIXED)
    padded = step_of(case, idle=2, spare_rows=3)
    out, rows = padded.run(), case.plan.num_rows
    assert torch.equal(out[:rows], step.run()) and out[rows:].isnan().all()
    assert padded.cache.k[:-1].nan_to_num(1).equal(step.cache.k[:-1].nan_to_num(1))


def test_a_wrong_table_is_noticed() -> None:
    step, case = make_step(MIXED)
    step.plan.block_tables[3, 1] = step.plan.block_tables[1, 0]  # another sequence's
    with pytest.raises(AssertionError):
        torch.testing.assert_close(step.run(), case.expected, atol=1e-5, rtol=1e-5)
