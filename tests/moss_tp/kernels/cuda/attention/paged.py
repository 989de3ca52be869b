"""Steps for the CUDA attention: a case's cache in planes, and its plan with tiles."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.kernels.cuda.attention.attend import attend
from moss_tp.kernels.cuda.attention.cache import PagedCache, PagedFormat
from moss_tp.kernels.cuda.attention.partials import partials_bytes
from moss_tp.kernels.cuda.attention.store import store_kv
from moss_tp.kernels.device_plan import DevicePlan, StepLimits
from moss_tp.kernels.kv_cache import SCALE_BYTES, BlockShape
from moss_tp.kernels.rotary import Rotary
from tests.moss_tp.kernels.paged_case import AttentionShape, Case, make_case
from tests.support.devices.device_plans import device_plan

SHAPE = AttentionShape(heads=2, head_dim=16, rotary_dim=8, block_size=8)


@dataclass(frozen=True)
class Step:
    """What one layer gets of a step. `qkv` are columns of a wider tensor, as in a block."""

    qkv: Tensor  # (T, 3, H, D)
    rotary: Rotary
    cache: PagedCache
    plan: DevicePlan
    scale: float

    def limits(self) -> StepLimits:
        plan = self.plan
        counts = (plan.num_rows, len(plan.block_tables), plan.num_rows, len(plan.short_tiles))
        return StepLimits(*counts, plan.max_context)

    def run(self) -> Tensor:
        """Stores and attends; `out (T, H * D)`, whose rows of no tile stay NaN."""
        store_kv(self.qkv, self.rotary, self.cache, self.plan)
        return self.attend()

    def attend(self) -> Tensor:
        rows, _, heads, dim = self.qkv.shape
        wide = torch.full((rows, heads * dim + 32), torch.nan, dtype=self.qkv.dtype)
        partials = poisoned_partials(partials_bytes(self.limits(), heads, dim))
        out = wide[:, : heads * dim]
        attend(self.qkv, self.cache, self.plan, self.scale, out, partials)
        return out


def poisoned_partials(num_bytes: int) -> Tensor:
    return torch.full((num_bytes // 4,), torch.nan)


def strided(qkv: Tensor) -> Tensor:
    """The same rows, each in a longer one."""
    wide = torch.full((len(qkv), qkv[0].numel() + 64), torch.nan, dtype=qkv.dtype)
    rows = wide[:, : qkv[0].numel()]
    rows.copy_(qkv.flatten(1))
    return rows.view(qkv.shape)


def paged_cache(cache: tuple[Tensor, Tensor]) -> PagedCache:
    """A case's rows in planes, with a spare block behind. Slots that nobody has written, which hold
    1000 in a case, hold NaN here."""
    rows = cache[0]
    is_int8 = rows.dtype == torch.int8
    dim = rows.shape[-1] - (SCALE_BYTES if is_int8 else 0)
    shape = BlockShape(rows.shape[1], rows.shape[2], dim)
    paged = PagedFormat().allocate(len(rows), shape, rows.dtype, rows.device)
    parts = ((paged.k, paged.k_scales), (paged.v, paged.v_scales))
    for part, (elements, scales) in zip(cache, parts, strict=True):
        elements[:-1] = part[..., :dim]
        stale = elements[:-1] == 1e3
        if scales is not None:
            scales[:-1] = part[..., dim:].contiguous().view(torch.float32)[..., 0]
            stale = scales[:-1] == torch.tensor(1e3) * (1 / 127)
            scales[:-1][stale] = torch.nan
        else:
            elements[:-1][stale] = torch.nan
    return paged


def step_of(case: Case, idle: int = 0, spare_rows: int = 0) -> Step:
    """With `idle` tiles of each kind, and `spare_rows` rows of anything."""
    plan = device_plan(case.plan, idle, idle, spare_rows)
    spare = torch.full((spare_rows, *case.qkv.shape[1:]), 1e3, dtype=case.qkv.dtype)
    qkv = strided(torch.cat((case.qkv, spare)))
    cache = paged_cache(case.cache)
    plan.slots[case.plan.num_rows :] = cache.spare_block * plan.block_size
    return Step(qkv, case.rotary, cache, plan, case.scale)


def make_step(
    lens: list[tuple[int, int]],
    dtype: torch.dtype = torch.float32,
    shape: AttentionShape = SHAPE,
    is_int8: bool = False,
) -> tuple[Step, Case]:
    """A step of `(query_len, context_len)` sequences, with the case that it was made from."""
    case = make_case(lens, dtype, shape, is_int8)
    return step_of(case), case
