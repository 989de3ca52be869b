"""Rotary embedding, and writing a step's K and V to the cache."""

from torch import Tensor

from moss_tp.kernels.cuda.attention import reference
from moss_tp.kernels.cuda.attention.cache import PagedCache
from moss_tp.kernels.cuda.attention.checks import check_cache, check_plan, check_qkv
from moss_tp.kernels.device_plan import DevicePlan
from moss_tp.kernels.rotary import Rotary


def store_kv(qkv: Tensor, rotary: Rotary, cache: PagedCache, plan: DevicePlan) -> None:
    """Rotates q of `qkv (T, 3, H, D)` in place and k on its way, and writes k and v to the plan's
    slots of `cache`; k and v of qkv are left as they are.

    Raises ValueError where the arguments do not fit together.
    """
    check_qkv(qkv, plan)
    check_plan(plan)
    check_cache(qkv, cache, plan)
    if rotary.dim > qkv.shape[-1]:
        raise ValueError(f"{rotary.dim} rotated dimensions of {qkv.shape[-1]}")
    reference.store_kv(qkv, rotary, cache, plan)
